"""`smtp-proxy domains …` and `smtp-proxy secrets …`: keys that sign mail, and the key that seals them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from smtp_proxy.aws.logins import sealing_keys
from smtp_proxy.cli.arguments import JsonOption, settings_of
from smtp_proxy.cli.connected import with_store
from smtp_proxy.cli.output import make_table, print_json, print_table, when
from smtp_proxy.config import Settings
from smtp_proxy.delivery.route import smarthost_dkim
from smtp_proxy.errors import ConfigurationError, InvalidValue
from smtp_proxy.model.domain import Domain
from smtp_proxy.sealing import SecretKeys, new_key_line
from smtp_proxy.store import Store
from smtp_proxy.tenants import domains

domains_app = typer.Typer(help="Domains that tenants send from, and the keys that sign for them.", no_args_is_help=True)
secrets_app = typer.Typer(help="The key that seals secrets in the database.", no_args_is_help=True)

DomainArgument = Annotated[str, typer.Argument(metavar="DOMAIN")]
TenantOption = Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="Whose.")]
AfterOption = Annotated[
    float | None,
    typer.Option("--sign-after", metavar="SECONDS", min=0, help="When the records are sure to be in the DNS."),
]


class Kind(str, Enum):  # noqa: UP042 - typer shows the values of a str enum
    """Which keys a domain gets."""

    BOTH = "both"
    RSA = "rsa"
    ED25519 = "ed25519"


_ALGORITHMS: dict[Kind, tuple[domains.Algorithm, ...]] = {
    Kind.BOTH: domains.ALGORITHMS,
    Kind.RSA: ("rsa-sha256",),
    Kind.ED25519: ("ed25519-sha256",),
}


@domains_app.command("add")
def domains_add(
    context: typer.Context,
    name: DomainArgument,
    tenant: Annotated[str, typer.Option("--tenant", metavar="NAME", help="Whose.")],
    kind: Annotated[Kind, typer.Option("--keys", help="RSA is what all verify.")] = Kind.BOTH,
    sign_after: AfterOption = None,
) -> None:
    """Give a tenant a domain with its first keys, and print the DNS records to publish."""
    settings = settings_of(context)
    keys = sealing_keys(settings)
    after = settings.dkim_publish_seconds if sign_after is None else sign_after

    async def work(store: Store) -> Domain:
        return await domains.add_domain(store, keys, tenant, name, _ALGORITHMS[kind], _now(), after)

    _print_records([with_store(context, work)], settings)


@domains_app.command("list")
def domains_list(context: typer.Context, tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """List domains and their keys, without anything secret."""
    now = _now()

    async def work(store: Store) -> list[dict[str, Any]]:
        names = {t.id: t.name for t in await store.list_tenants()}
        owner = (await store.tenant_by_name(tenant)).id if tenant is not None else None
        return [
            {
                "domain": domain.name,
                "tenant": names.get(domain.tenant_id, str(domain.tenant_id)),
                "selector": key.selector,
                "algorithm": key.algorithm,
                "signs_from": key.signs_from,
                "signs_until": key.signs_until,
                "signs": key.signs_at(now),
                "secret_key_id": key.sealed.key_id,
            }
            for domain in await store.list_domains(owner)
            for key in domain.keys
        ]

    rows = with_store(context, work)
    if as_json:
        print_json(rows)
        return
    table = make_table("domain", "tenant", "selector", "algorithm", "signs from", "until", "now")
    for row in rows:
        cells = (row["domain"], row["tenant"], row["selector"], row["algorithm"])
        table.add_row(*cells, when(row["signs_from"]), when(row["signs_until"]), "signs" if row["signs"] else "")
    print_table(table)


@domains_app.command("rotate")
def domains_rotate(
    context: typer.Context, name: DomainArgument, tenant: TenantOption = None, sign_after: AfterOption = None
) -> None:
    """Make the next keys and print their records; they sign later, and the old ones until then."""
    settings = settings_of(context)
    keys = sealing_keys(settings)
    after = settings.dkim_publish_seconds if sign_after is None else sign_after

    async def work(store: Store) -> Domain:
        domain = await _one(store, name, tenant)
        return await domains.rotate(store, keys, domain, _now(), after, settings.dkim_retire_seconds)

    _print_records([with_store(context, work)], settings)


@domains_app.command("records")
def domains_records(
    context: typer.Context, name: DomainArgument, tenant: TenantOption = None, as_json: JsonOption = False
) -> None:
    """Print the DNS records that have to be there now."""

    async def work(store: Store) -> list[Domain]:
        return [await _one(store, name, tenant)]

    _print_records(with_store(context, work), settings_of(context), as_json=as_json)


@domains_app.command("remove")
def domains_remove(context: typer.Context, name: DomainArgument, tenant: TenantOption = None) -> None:
    """Forget a domain and its keys: its mail leaves unsigned from now on."""

    async def work(store: Store) -> None:
        await store.remove_domain((await _one(store, name, tenant)).id)

    with_store(context, work)
    typer.echo(f"removed domain {name}; leave its records in the DNS while mail that it signed is under way")


@secrets_app.command("new-key")
def secrets_new_key(file: Annotated[Path, typer.Argument(metavar="FILE", help="Made if it is not there.")]) -> None:
    """Put a new key on top of SECRET_KEY_FILE: it seals from now on, and the older ones still open."""
    old = file.read_text(encoding="ascii") if file.exists() else ""
    part = file.with_name(f".{file.name}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as out:
            out.write(new_key_line() + old)
        part.replace(file)
    except OSError as error:
        raise ConfigurationError(f"{file} can not be written: {error.strerror}") from None
    typer.echo(f"{file} has a new first key; set SECRET_KEY_FILE to it, restart what uses it, then `secrets reseal`")


@secrets_app.command("reseal")
def secrets_reseal(context: typer.Context) -> None:
    """Seal everything with the first key of SECRET_KEY_FILE, after which the others can be taken out."""
    keys = sealing_keys(settings_of(context))

    async def work(store: Store) -> int:
        count = 0
        for key in (key for domain in await store.list_domains() for key in domain.keys):
            if key.sealed.key_id != keys.current:
                sealed = keys.seal(keys.open(key.sealed, key.context), key.context)
                count += await store.reseal_domain_key(key, sealed)
        for webhook in await store.list_webhooks():
            if webhook.sealed.key_id != keys.current:
                sealed = keys.seal(keys.open(webhook.sealed, webhook.context), webhook.context)
                count += await store.reseal_webhook(webhook, sealed)
        return count + await _reseal_certificates(store, keys)

    typer.echo(f"sealed {with_store(context, work)} secrets anew with the key {keys.current}")


# -- below


async def _reseal_certificates(store: Store, keys: SecretKeys) -> int:
    count = 0
    for certificate in await store.list_fleet_certificates(current_only=False):
        if certificate.sealed.key_id != keys.current:
            sealed = keys.seal(keys.open(certificate.sealed, certificate.context), certificate.context)
            count += await store.reseal_fleet_certificate(certificate, sealed)
    for account in await store.list_acme_accounts():
        if account.sealed.key_id != keys.current:
            sealed = keys.seal(keys.open(account.sealed, account.context), account.context)
            count += await store.reseal_acme_account(account, sealed)
    return count


async def _one(store: Store, name: str, tenant: str | None) -> Domain:
    owner = (await store.tenant_by_name(tenant)).id if tenant is not None else None
    found = await domains.find(store, name, owner)
    if len(found) > 1:
        raise InvalidValue(f"{len(found)} tenants have {name}: say whose with --tenant")
    return found[0]


def _print_records(found: list[Domain], settings: Settings, *, as_json: bool = False) -> None:
    now = _now()
    rows = [(d, r) for d in found for r in domains.records(d, now, settings.dkim_retire_seconds)]
    if as_json:
        print_json([
            {"domain": d.name, "name": r.name, "type": "TXT", "text": r.text, "state": r.state,
             "signs_from": r.signs_from, "keep_until": r.until}
            for d, r in rows
        ])  # fmt: skip
        return
    for _, record in rows:
        about = {"next": f"publish now; signs from {when(record.signs_from)}", "signs": "signs"}
        typer.echo(f"; {about.get(record.state, f'retired; keep until {when(record.until)}')}")
        typer.echo(record.zone_line)
    if smarthost_dkim(settings) == "none":
        host = settings.smarthost_host
        typer.echo(f"; the smarthost {host} signs itself and is given no signature of these keys: docs/ROUTES.md")


def _now() -> datetime:
    return datetime.now(UTC)
