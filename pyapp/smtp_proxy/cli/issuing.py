"""`smtp-proxy certs declare|undeclare|orders|renew|revoke`: what the issuer (`serve certs`) is to look after."""

from __future__ import annotations

import asyncio
import importlib
from enum import Enum
from typing import Annotated, Any

import typer

from smtp_proxy.aws.logins import sealing_keys
from smtp_proxy.certs.declared import make_order
from smtp_proxy.cli.arguments import JsonOption, settings_of
from smtp_proxy.cli.connected import with_store
from smtp_proxy.cli.output import make_table, print_json, print_table, when
from smtp_proxy.clock import SystemClock
from smtp_proxy.errors import NotFound
from smtp_proxy.model.certificate import CertificateOrder, StoredCertificate
from smtp_proxy.store import Store

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What it is declared as; see `certs orders`.")]


class Reason(str, Enum):  # noqa: UP042 - typer shows the values of a str enum
    """RFC 5280 5.3.1, as far as a CA takes them from a subscriber."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "key-compromise"
    SUPERSEDED = "superseded"
    CESSATION = "cessation-of-operation"


_NUMBERS = {Reason.UNSPECIFIED: 0, Reason.KEY_COMPROMISE: 1, Reason.SUPERSEDED: 4, Reason.CESSATION: 5}


def declare(
    context: typer.Context,
    hosts: Annotated[list[str], typer.Argument(metavar="HOST…", help="DNS names, also *.DOMAIN.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="By default the first host.")] = "",
    challenge: Annotated[str, typer.Option("--challenge", metavar="KIND", help="http-01 or dns-01.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Have `serve certs` get a certificate for these hosts and renew it, beside those of ACME_CERTIFICATES."""
    order = make_order(name, hosts, challenge)
    with_store(context, lambda store: store.put_certificate_order(order))
    if as_json:
        print_json({"name": order.name, "names": list(order.names), "challenge": order.challenge})
        return
    typer.echo(f"declared {order.name} for {', '.join(order.names)} by {order.challenge}")


def undeclare(context: typer.Context, name: NameArgument, as_json: JsonOption = False) -> None:
    """Renew it no longer. What is there serves to its end."""
    with_store(context, lambda store: store.remove_certificate_order(name))
    if as_json:
        print_json({"name": name})
        return
    typer.echo(f"{name} is no longer renewed")


def renew(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME…]", help="By default all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Have them issued anew now, due or not. `serve certs` hears of it at once; `certs orders` tells how it went."""

    async def work(store: Store) -> list[str]:
        wanted = list(names or [order.name for order in await store.list_certificate_orders()])
        for name in wanted:
            await store.ask_for_certificate(name)
        return wanted

    asked = with_store(context, work)
    if as_json:
        print_json({"asked": asked})
        return
    typer.echo(f"asked for: {', '.join(asked)}" if asked else "no certificate is declared")


def orders(context: typer.Context, as_json: JsonOption = False) -> None:
    """List what is declared, what serves of it, and how the last attempts went."""

    async def work(store: Store) -> list[tuple[CertificateOrder, StoredCertificate | None]]:
        current = {c.name: c for c in await store.list_fleet_certificates()}
        return [(order, current.get(order.name)) for order in await store.list_certificate_orders()]

    rows = [_row(order, certificate) for order, certificate in with_store(context, work)]
    if as_json:
        print_json(rows)
        return
    table = make_table("name", "hosts", "challenge", "good until", "renewal", "failed", "next try", "why")
    for row in rows:
        cells = (row["name"], ", ".join(row["names"]), row["challenge"], when(row["not_after"]), when(row["renew_at"]))
        table.add_row(*cells, str(row["attempts"]), when(row["next_try_at"]), row["last_error"] or "")
    print_table(table)


def revoke(
    context: typer.Context,
    name: NameArgument,
    reason: Annotated[Reason, typer.Option("--reason", help="What the CA is told.")] = Reason.UNSPECIFIED,
    as_json: JsonOption = False,
) -> None:
    """Have the CA revoke what serves; no replica serves it from then on. What is declared is issued anew at once."""
    settings = settings_of(context)
    # The library of ACME takes its time to load, and no other command needs it.
    issuing = importlib.import_module("smtp_proxy.certs.issuer")

    async def work(store: Store) -> StoredCertificate:
        found = await store.list_fleet_certificates(name)
        if not found:
            raise NotFound(f"the store has no certificate {name!r} that serves; see `smtp-proxy certs orders`")
        keys = await asyncio.to_thread(sealing_keys, settings)
        issuer = issuing.Issuer(settings, store, keys, None, SystemClock())
        await issuer.revoke(found[0], _NUMBERS[reason])
        if any(order.name == name for order in await store.list_certificate_orders()):
            await store.ask_for_certificate(name)
        return found[0]

    revoked = with_store(context, work)
    if as_json:
        print_json({"name": name, "id": revoked.id, "reason": reason.value})
        return
    typer.echo(f"{name} is revoked")


def add_issuing(certs_app: typer.Typer) -> None:
    """Make these commands of `smtp-proxy certs`."""
    for command in (declare, undeclare, orders, renew, revoke):
        certs_app.command()(command)


# -- below


def _row(order: CertificateOrder, certificate: StoredCertificate | None) -> dict[str, Any]:
    return {
        "name": order.name,
        "names": list(order.names),
        "challenge": order.challenge,
        "declared_by": order.declared_by,
        "not_after": None if certificate is None else certificate.not_after,
        "renew_at": None if certificate is None else certificate.renew_at,
        "directory": None if certificate is None else certificate.directory,
        "attempts": order.attempts,
        "next_try_at": order.next_try_at,
        "asked_at": order.asked_at,
        "last_error": order.last_error,
    }
