"""`smtp-proxy suppressions …`: addresses that get no more mail of a tenant."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from smtp_proxy.cli.arguments import JsonOption
from smtp_proxy.cli.connected import with_store
from smtp_proxy.cli.output import make_table, print_json, print_table, when
from smtp_proxy.errors import InvalidValue, NotFound
from smtp_proxy.model.mailbox import mailbox_key
from smtp_proxy.model.outcome import Suppression
from smtp_proxy.store import Store
from smtp_proxy.tenants.names import mailbox

# Addresses put in with one statement.
_BATCH = 5000

suppressions_app = typer.Typer(help="Addresses that get no more mail of a tenant.", no_args_is_help=True)
TenantArgument = Annotated[str, typer.Argument(metavar="TENANT")]
ReasonOption = Annotated[str, typer.Option(metavar="TEXT", help="Why; senders see it in the refusal.")]


@suppressions_app.command("list")
def suppressions_list(
    context: typer.Context,
    tenant: TenantArgument,
    address: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Only this address.")] = None,
    after: Annotated[str, typer.Option(metavar="ADDRESS", help="Only those behind this one.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 1000,
    as_json: JsonOption = False,
) -> None:
    """List them, by address."""

    async def work(store: Store) -> list[Suppression]:
        owner = await store.tenant_by_name(tenant)
        return await store.list_suppressions(owner.id, after=after.lower(), limit=limit, address=address)

    found = with_store(context, work)
    if as_json:
        print_json([asdict(suppression) for suppression in found])
        return
    table = make_table("address", "since", "message", "reason")
    for s in found:
        table.add_row(s.address, when(s.created_at), str(s.envelope_id or ""), s.reason)
    print_table(table)


@suppressions_app.command("add")
def suppressions_add(
    context: typer.Context,
    tenant: TenantArgument,
    addresses: Annotated[list[str], typer.Argument(metavar="ADDRESS...")],
    reason: ReasonOption = "added by an operator",
) -> None:
    """Let these addresses get no more mail of the tenant."""
    _add(context, tenant, [mailbox(address) for address in addresses], reason)


@suppressions_app.command("remove")
def suppressions_remove(
    context: typer.Context,
    tenant: TenantArgument,
    addresses: Annotated[list[str], typer.Argument(metavar="ADDRESS...")],
) -> None:
    """Let these addresses get mail again."""

    async def work(store: Store) -> list[str]:
        owner = await store.tenant_by_name(tenant)
        return await store.remove_suppressions(owner.id, [address.strip() for address in addresses])

    removed = with_store(context, work)
    typer.echo(f"removed {len(removed)}")
    if left := [address for address in addresses if mailbox_key(address.strip()) not in removed]:
        raise NotFound(f"not suppressed: {', '.join(left)}")


@suppressions_app.command("import")
def suppressions_import(
    context: typer.Context,
    tenant: TenantArgument,
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="One address per line; what follows a comma is not read.")
    ],
    reason: ReasonOption = "imported",
) -> None:
    """Add all addresses of a file, or of what comes in (-)."""
    _add(context, tenant, read_addresses(_text(file)), reason)


def read_addresses(text: str) -> list[str]:
    """The first column of each line; blank lines, comments (#) and a heading without an @ are left out.

    Raises InvalidValue naming the line.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        address = line.partition(",")[0].strip().strip('"')
        if not address or address.startswith("#") or (number == 1 and "@" not in address):
            continue
        try:
            found.append(mailbox(address))
        except InvalidValue as error:
            raise InvalidValue(f"line {number}: {error}") from None
    return found


def _add(context: typer.Context, tenant: str, addresses: list[str], reason: str) -> None:
    async def work(store: Store) -> int:
        owner = await store.tenant_by_name(tenant)
        return sum([await store.add_suppressions(owner.id, some, reason) for some in _batches(addresses)])

    added = with_store(context, work)
    typer.echo(f"added {added}, {len(set(map(mailbox_key, addresses))) - added} were there already")


def _batches(addresses: list[str]) -> Iterable[list[str]]:
    return (addresses[at : at + _BATCH] for at in range(0, len(addresses), _BATCH))


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{file} cannot be read: {error}") from None
