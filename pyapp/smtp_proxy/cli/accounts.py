"""`smtp-proxy tenant …` and `smtp-proxy credential …`: who may log in."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any

import typer

from smtp_proxy import tenants
from smtp_proxy.cli.arguments import JsonOption
from smtp_proxy.cli.connected import with_store
from smtp_proxy.cli.lanes import credential_lane
from smtp_proxy.cli.output import make_table, print_json, print_table, when
from smtp_proxy.cli.policy import tenant_policy
from smtp_proxy.cli.senders import SenderOption, credential_senders
from smtp_proxy.errors import InvalidValue, NotFound
from smtp_proxy.model.limits import AtLimit, TenantLimits
from smtp_proxy.model.tenant import Credential, Tenant
from smtp_proxy.store import Store
from smtp_proxy.tenants.senders import shown

tenant_app = typer.Typer(help="Teams whose applications submit mail.", no_args_is_help=True)
credential_app = typer.Typer(help="Logins of tenants.", no_args_is_help=True)

PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input instead of generating one.")
]
NetworkOption = Annotated[
    list[str] | None,
    typer.Option("--network", metavar="CIDR", help="Take this login from there alone; may be given again."),
]
UsernameArgument = Annotated[str, typer.Argument(metavar="USERNAME")]
TenantArgument = Annotated[str, typer.Argument(metavar="NAME")]
LimitOption = Annotated[str | None, typer.Option(metavar="NUMBER|none", help="Over the whole fleet; none: any number.")]
# Postgres' integer.
_LIMIT_MAX = 2**31 - 1


@tenant_app.command("create")
def tenant_create(context: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Add a tenant."""

    async def work(store: Store) -> None:
        tenant = await tenants.create_tenant(store, name)
        typer.echo(f"created tenant {tenant.name} ({tenant.id})")

    with_store(context, work)


@tenant_app.command("list")
def tenant_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List tenants."""
    found = with_store(context, lambda store: store.list_tenants())
    if as_json:
        print_json([asdict(tenant) for tenant in found])
        return
    table = make_table("name", "id", "created", "disabled", "limits")
    for tenant in found:
        limits = describe_limits(tenant.limits)
        table.add_row(tenant.name, str(tenant.id), when(tenant.created_at), when(tenant.disabled_at), limits)
    print_table(table)


@tenant_app.command("show")
def tenant_show(context: typer.Context, name: TenantArgument, as_json: JsonOption = False) -> None:
    """Show one tenant and its limits."""
    tenant = with_store(context, lambda store: store.tenant_by_name(name))
    if as_json:
        print_json(asdict(tenant))
    else:
        _print_tenant(tenant)


@tenant_app.command("limits")
def tenant_limits(
    context: typer.Context,
    name: TenantArgument,
    messages_per_minute: LimitOption = None,
    recipients_per_minute: LimitOption = None,
    sessions: Annotated[
        str | None, typer.Option(metavar="NUMBER|none", help="Logged in at once, over the whole fleet.")
    ] = None,
    at_limit: Annotated[
        AtLimit | None, typer.Option(help="What becomes of mail over a rate: 450, later, or until it is released.")
    ] = None,
) -> None:
    """Change what a tenant may send; what is not named stays. Every ingress hears of it at once."""

    async def work(store: Store) -> Tenant:
        old = (await store.tenant_by_name(name)).limits
        return await store.set_tenant_limits(
            name,
            TenantLimits(
                parse_limit(messages_per_minute, old.messages_per_minute),
                parse_limit(recipients_per_minute, old.recipients_per_minute),
                parse_limit(sessions, old.sessions),
                at_limit or old.at_limit,
            ),
        )

    _print_tenant(with_store(context, work))


tenant_app.command("policy")(tenant_policy)


@credential_app.command("create")
def credential_create(
    context: typer.Context,
    tenant: Annotated[str, typer.Argument(metavar="TENANT")],
    username: UsernameArgument,
    password_stdin: PasswordStdin = False,
    sender: SenderOption = None,
    network: NetworkOption = None,
) -> None:
    """Give a tenant a login. A generated password is shown once, now."""
    given = _password_from_stdin() if password_stdin else None

    async def work(store: Store) -> None:
        async with _passwords() as passwords:
            credential, secret = await tenants.create_credential(
                store, passwords, tenant, username, given, sender or (), network or ()
            )
        typer.echo(f"created credential {credential.username} of tenant {tenant}")
        _show_password(None if given else secret)

    with_store(context, work)


@credential_app.command("list")
def credential_list(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="Only of this tenant.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List credentials, without anything secret."""

    async def work(store: Store) -> list[dict[str, Any]]:
        names = {t.id: t.name for t in await store.list_tenants()}
        owner = (await store.tenant_by_name(tenant)).id if tenant is not None else None
        return [
            {
                "username": c.username,
                "tenant": names.get(c.tenant_id, str(c.tenant_id)),
                "id": c.id,
                "created_at": c.created_at,
                "disabled_at": c.disabled_at,
                "allowed_senders": c.allowed_senders,
                "networks": [str(network) for network in c.allowed_networks],
                "lane": "tenant" if c.lane is None else c.lane.name.lower(),
            }
            for c in await store.list_credentials(owner)
        ]

    rows = with_store(context, work)
    if as_json:
        print_json(rows)
        return
    table = make_table("username", "tenant", "id", "created", "disabled", "senders", "networks", "lane")
    for row in rows:
        table.add_row(
            row["username"],
            row["tenant"],
            str(row["id"]),
            when(row["created_at"]),
            when(row["disabled_at"]),
            shown(row["allowed_senders"]),
            " ".join(row["networks"]),
            row["lane"],
        )
    print_table(table)


@credential_app.command("disable")
def credential_disable(context: typer.Context, username: UsernameArgument) -> None:
    """Refuse this login from now on, in every process."""
    with_store(context, lambda store: store.disable_credential(username))
    typer.echo(f"disabled credential {username}")


@credential_app.command("enable")
def credential_enable(context: typer.Context, username: UsernameArgument) -> None:
    """Let a disabled login in again, with the password it had."""

    async def work(store: Store) -> None:
        credential = await store.enable_credential(username)
        typer.echo(f"enabled credential {username}")
        await _tell_if_disabled(store, credential)

    with_store(context, work)


@credential_app.command("reset-password")
def credential_reset_password(
    context: typer.Context, username: UsernameArgument, password_stdin: PasswordStdin = False
) -> None:
    """Replace a password; a disabled login stays so. A generated password is shown once, now."""
    given = _password_from_stdin() if password_stdin else None

    async def work(store: Store) -> None:
        async with _passwords() as passwords:
            credential, secret = await tenants.reset_password(store, passwords, username, given)
        typer.echo(f"replaced the password of {username}")
        _show_password(None if given else secret)
        await _tell_if_disabled(store, credential)

    with_store(context, work)


credential_app.command("senders")(credential_senders)
credential_app.command("lane")(credential_lane)


@credential_app.command("networks")
def credential_networks(
    context: typer.Context,
    username: UsernameArgument,
    networks: Annotated[list[str] | None, typer.Argument(metavar="[CIDR]...")] = None,
    anywhere: Annotated[bool, typer.Option("--anywhere", help="Take this login from every address again.")] = False,
) -> None:
    """Say from which networks a login is taken, in place of those it had; without any, show them."""
    if networks and anywhere:
        raise InvalidValue("--anywhere and networks exclude each other")

    async def work(store: Store) -> Credential:
        if networks or anywhere:
            return await tenants.set_networks(store, username, networks or ())
        found = await store.credential_by_username(username)
        if found is None:
            raise NotFound(f"there is no credential {username}")
        return found

    allowed = with_store(context, work).allowed_networks
    typer.echo(f"{username} may log in from {', '.join(map(str, allowed)) or 'every address'}")


# -- below


def parse_limit(text: str | None, old: int | None) -> int | None:
    """A limit as it is given: a number, `none`, or nothing, which leaves the old one. Raises InvalidValue."""
    if text is None:
        return old
    if text.lower() == "none":
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= _LIMIT_MAX):
        raise InvalidValue(f"{text}: a limit is a whole number from 1 on, or none")
    return int(text)


def describe_limits(limits: TenantLimits) -> str:
    """`600 messages/min, 5 sessions; reject`, or nothing."""
    known = [
        f"{value} {what}"
        for value, what in (
            (limits.messages_per_minute, "messages/min"),
            (limits.recipients_per_minute, "recipients/min"),
            (limits.sessions, "sessions"),
        )
        if value is not None
    ]
    return ", ".join(known) + (f"; {limits.at_limit.value}" if limits.has_rate else "")


def _print_tenant(tenant: Tenant) -> None:
    limits = tenant.limits
    typer.echo(f"tenant                 {tenant.name}")
    typer.echo(f"id                     {tenant.id}")
    typer.echo(f"created                {when(tenant.created_at)}")
    if tenant.disabled_at is not None:
        typer.echo(f"disabled               {when(tenant.disabled_at)}")
    typer.echo(f"messages per minute    {limits.messages_per_minute or 'any number'}")
    typer.echo(f"recipients per minute  {limits.recipients_per_minute or 'any number'}")
    typer.echo(f"sessions at once       {limits.sessions or 'any number'}")
    typer.echo(f"at the limit           {limits.at_limit.value}")


def _password_from_stdin() -> str:
    return sys.stdin.readline().rstrip("\r\n")


@asynccontextmanager
async def _passwords() -> AsyncIterator[tenants.Passwords]:
    passwords = tenants.Passwords(threads=1)
    try:
        yield passwords
    finally:
        passwords.close()


def _show_password(secret: str | None) -> None:
    """On stdout, since whoever asked for it may want to pipe it somewhere safe."""
    if secret is not None:
        typer.echo(f"password: {secret}")


async def _tell_if_disabled(store: Store, credential: Credential) -> None:
    """On stderr: what was asked for is done, and yet this login is refused."""
    username = credential.username
    if credential.disabled_at is not None:
        typer.echo(f"{username} stays disabled; `smtp-proxy credential enable {username}` lets it in again", err=True)
        return
    found = await store.credential_by_username(username)
    if found is not None and found.disabled_at is not None:
        typer.echo(f"{username} is refused all the same: its tenant is disabled", err=True)
