"""`smtp-proxy certs import|export|selfsigned|trust`: certificates of operators, and a CA of one's own."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import Annotated

import typer

from smtp_proxy.aws.logins import sealing_keys
from smtp_proxy.certfiles import transfer
from smtp_proxy.certfiles.files import folder_name
from smtp_proxy.certs.selfsigned import DEVELOPMENT_NAMES, ensure_server_certificate
from smtp_proxy.cli.arguments import JsonOption, settings_of
from smtp_proxy.cli.connected import with_store
from smtp_proxy.cli.output import make_table, print_json, print_table
from smtp_proxy.clock import SystemClock
from smtp_proxy.errors import CertificateProblem, ConfigurationError, InvalidValue, NotFound
from smtp_proxy.model.certificate import StoredCertificate
from smtp_proxy.store import Store

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of the certificate: its folder in TLS_CERT_DIR.")]


def import_(
    context: typer.Context,
    name: NameArgument,
    chain: Annotated[Path, typer.Option("--chain", metavar="PEM", help="The certificate first, then its CAs.")],
    key: Annotated[Path, typer.Option("--key", metavar="PEM", help="Its private key, unencrypted.")],
    as_json: JsonOption = False,
) -> None:
    """Check a certificate and have it serve: by the store where TLS_CERT_SOURCE is store, else in TLS_CERT_DIR."""
    settings, now = settings_of(context), SystemClock().now()
    chain_pem, key_pem = _read("--chain", chain), _read("--key", key)
    good = transfer.check_imported(settings, chain_pem, key_pem, now)
    if settings.tls_cert_source == "store":
        sealed = transfer.sealed_for_store(name, good, chain_pem, key_pem, sealing_keys(settings), now)
        with_store(context, lambda store: _bring(store, sealed))
        where = "store"
    else:
        where = str(transfer.write_imported(settings, name, chain_pem, key_pem))
    if as_json:
        print_json({"name": name, "names": list(good.names), "not_after": good.not_after, "where": where})
        return
    typer.echo(f"{name} is in {where}, for {', '.join(good.names)}, good until {good.not_after:%Y-%m-%d %H:%M:%SZ}")


def export(
    context: typer.Context,
    name: NameArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Made if it is missing.")],
    with_key: Annotated[bool, typer.Option("--with-key", help="Its private key too (0600).")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the store's certificate of that name to files."""

    async def work(store: Store) -> list[Path]:
        found = await store.list_fleet_certificates(folder_name(name))
        if not found:
            raise NotFound(f"the store has no certificate {name!r} that serves; TLS_CERT_DIR has files already")
        keys = await asyncio.to_thread(sealing_keys, settings_of(context)) if with_key else None
        return await asyncio.to_thread(transfer.write_exported, out, found[0], keys)

    written = [str(file) for file in with_store(context, work)]
    if as_json:
        print_json({"name": name, "files": written})
        return
    typer.echo("\n".join(written))


def selfsigned(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where ca.pem, server.pem and server-key.pem go.")],
    names: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="HOST", help="DNS name or address; again for more. Else this machine's."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a CA and a server certificate by it, to try things out; what is there and still good is kept."""
    settings = settings_of(context)
    if settings.mode == "production":
        raise ConfigurationError(
            "SMTP_PROXY_MODE is production, where nobody should trust a certificate of our own making: declare it "
            "(`smtp-proxy certs declare`), or import one"
        )
    wanted = names or list(dict.fromkeys([*DEVELOPMENT_NAMES, settings.hostname]))
    before = _content(directory / "server.pem")
    files = ensure_server_certificate(directory, wanted)
    kept = before == files.certificate_file.read_bytes()
    if as_json:
        paths = {"ca": files.ca_file, "certificate": files.certificate_file, "key": files.key_file}
        print_json({"kept": kept, "names": wanted} | {kind: str(path) for kind, path in paths.items()})
        return
    done = "kept, since it is good for another month" if kept else f"made for {', '.join(wanted)}"
    typer.echo(f"{files.certificate_file}: {done}\nto trust it: {files.ca_file}")


def trust(context: typer.Context, as_json: JsonOption = False) -> None:
    """Tell how to have programs trust the CA of `smtp-proxy dev`. Changes nothing."""
    ca_file = (settings_of(context).data_dir / "tls" / "ca.pem").absolute()
    if not ca_file.is_file():
        raise CertificateProblem(f"SMTP_PROXY_DATA_DIR: there is no {ca_file}: `smtp-proxy dev` makes it")
    rows = _ways(shlex.quote(str(ca_file)))
    if as_json:
        print_json({"ca_file": str(ca_file), "ways": [{"program": p, "command": command} for p, command in rows]})
        return
    table = make_table("program", "command or environment")
    for row in rows:
        table.add_row(*row)
    print_table(table)


def add_bringing(certs_app: typer.Typer) -> None:
    """Make these commands of `smtp-proxy certs`."""
    certs_app.command("import")(import_)
    for command in (export, selfsigned, trust):
        certs_app.command()(command)


# -- below


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


async def _bring(store: Store, certificate: StoredCertificate) -> None:
    """Raises InvalidValue: the issuer would replace it at once."""
    declared = {order.name: set(order.names) for order in await store.list_certificate_orders()}
    wanted = declared.get(certificate.name)
    if wanted is not None and wanted != set(certificate.names):
        raise InvalidValue(
            f"{certificate.name} is declared for {', '.join(sorted(wanted))}, so `serve certs` would replace this one: "
            f"`certs undeclare {certificate.name}` first, or import it under another name"
        )
    await store.add_fleet_certificate(certificate)


def _ways(ca: str) -> list[tuple[str, str]]:
    """Per program; the system's stores serve all that use them, and need an administrator."""
    debian = "/usr/local/share/ca-certificates/smtp-proxy-dev.crt"
    return [
        ("Debian, Ubuntu", f"sudo install -m 644 {ca} {debian} && sudo update-ca-certificates"),
        ("macOS", f"sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {ca}"),
        ("Python", f"SSL_CERT_FILE={ca}"),
        ("Node", f"NODE_EXTRA_CA_CERTS={ca}"),
        ("curl", f"curl --cacert {ca}"),
        ("swaks", f"swaks --tls-verify --tls-ca-path {ca}"),
    ]


def _read(option: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidValue(f"{option}: can not read {file}: {error.strerror}") from None
