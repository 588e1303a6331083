"""`smtp-proxy credential senders …`: which reverse-paths a login may use (RFC 6409 6.1)."""

from __future__ import annotations

from typing import Annotated

import typer

from smtp_proxy import tenants
from smtp_proxy.cli.connected import with_store
from smtp_proxy.errors import InvalidValue
from smtp_proxy.model.tenant import Credential
from smtp_proxy.store import Store
from smtp_proxy.tenants.senders import shown

PATTERNS = "user@example.com, example.com, *.example.com (all domains below), or '<>' (the null reverse-path)"
SenderOption = Annotated[
    list[str] | None,
    typer.Option("--sender", metavar="PATTERN", help=f"May send as: {PATTERNS}. May be given again; without: anyone."),
]


def credential_senders(
    context: typer.Context,
    username: Annotated[str, typer.Argument(metavar="USERNAME")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATTERN", help=f"Only these from now on: {PATTERNS}.")
    ] = None,
    add: Annotated[list[str] | None, typer.Option("--add", metavar="PATTERN", help="This one, too.")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", metavar="PATTERN", help="No longer this.")] = None,
    any_: Annotated[bool, typer.Option("--any", help="Anyone, also the null reverse-path.")] = False,
) -> None:
    """Show or change as whom a login may send. Sessions logged in already keep their rights until they end."""
    if bool(set_) + any_ + bool(add or remove) > 1:
        raise InvalidValue("--set, --any, and --add with --remove exclude each other")

    async def work(store: Store) -> Credential:
        if set_ or any_:
            return await tenants.set_senders(store, username, set_ or ())
        return await tenants.change_senders(store, username, add or (), remove or ())

    credential = with_store(context, work)
    typer.echo(f"{credential.username} may send as: {shown(credential.allowed_senders)}")
