"""`smtp-proxy certs …`: the server's certificates; `smtp-proxy credential certificate …`: those of clients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from smtp_proxy.cli import control
from smtp_proxy.cli.arguments import JsonOption, settings_of
from smtp_proxy.cli.connected import with_store
from smtp_proxy.cli.output import make_table, print_json, print_table, when
from smtp_proxy.errors import InvalidValue, SmtpProxyError
from smtp_proxy.model.tenant import CertificateIdentity
from smtp_proxy.store import Store
from smtp_proxy.tenants import names

certs_app = typer.Typer(help="The certificates that the SMTP service shows.", no_args_is_help=True)
client_certificates_app = typer.Typer(help="Client certificates that log in (AUTH EXTERNAL).", no_args_is_help=True)

UsernameArgument = Annotated[str, typer.Argument(metavar="USERNAME")]
IdentityArgument = Annotated[
    str | None,
    typer.Argument(metavar="IDENTITY", help="sha256:FINGERPRINT, or dns:, email:, uri:, ip: or cn: and a name."),
]


@certs_app.command("reload")
def reload(context: typer.Context, as_json: JsonOption = False) -> None:
    """Make the running service read its certificate files again.

    Exit code 2: they are refused, and the old ones serve on; 1: no service answers.
    """
    _show(_asked(context, "reload", as_json), as_json, "reloaded")


@certs_app.command("list")
def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """List what the running service shows, the default first."""
    _show(_asked(context, "certificates", as_json), as_json, None)


@client_certificates_app.command("add")
def add(
    context: typer.Context,
    username: UsernameArgument,
    identity: IdentityArgument = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="PEM", help="This very certificate, by its fingerprint.")
    ] = None,
) -> None:
    """Let a client certificate log in as USERNAME, without a password."""
    if (identity is None) == (file is None):
        raise InvalidValue("say which certificate: either IDENTITY or --file PEM")
    meant = names.certificate_identity(identity) if identity is not None else _fingerprint_in(file)
    added = with_store(context, lambda store: store.add_certificate(username, meant))
    typer.echo(f"{added.identity} logs in as {added.username}")


@client_certificates_app.command("list")
def list_client_certificates(
    context: typer.Context,
    username: Annotated[str | None, typer.Argument(metavar="USERNAME", help="Only of this login.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List which client certificates log in as whom."""

    async def work(store: Store) -> list[CertificateIdentity]:
        return await store.list_certificates(username)

    rows = with_store(context, work)
    if as_json:
        print_json([{"identity": c.identity, "username": c.username, "created_at": c.created_at} for c in rows])
        return
    table = make_table("username", "certificate", "added")
    for row in rows:
        table.add_row(row.username, row.identity, when(row.created_at))
    print_table(table)


@client_certificates_app.command("remove")
def remove(
    context: typer.Context, username: UsernameArgument, identity: Annotated[str, typer.Argument(metavar="IDENTITY")]
) -> None:
    """Let that certificate no longer log in as USERNAME, in every process."""
    meant = names.certificate_identity(identity)
    with_store(context, lambda store: store.remove_certificate(username, meant))
    typer.echo(f"{meant} no longer logs in as {username}")


# -- below


def _asked(context: typer.Context, verb: str, as_json: bool) -> list[dict[str, Any]]:
    """The certificates. With JSON a refusal is told on stdout too, for whoever reads it there."""
    try:
        return list(control.ask(settings_of(context).control_socket, verb)["certificates"])
    except SmtpProxyError as error:
        if as_json:
            print_json({"ok": False, "error": str(error)})
        raise


def _show(certificates: list[dict[str, Any]], as_json: bool, done: str | None) -> None:
    if as_json:
        print_json({"ok": True, "certificates": certificates})
        return
    table = make_table("names", "not after", "SHA-256", "issuer", "")
    for each in certificates:
        table.add_row(
            ", ".join(each["names"]),
            each["not_after"],
            each["fingerprint"],
            each["issuer"],
            "default" if each["default"] else "",
        )
    print_table(table)
    if done is not None:
        typer.echo(f"{done}: {len(certificates)}")


def _fingerprint_in(file: Path | None) -> str:
    try:
        certificate = x509.load_pem_x509_certificate(b"" if file is None else file.read_bytes())
    except OSError as error:
        raise InvalidValue(f"--file: can not read {file}: {error.strerror}") from None
    except ValueError:
        raise InvalidValue(f"--file: {file} holds no PEM certificate") from None
    return f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}"
