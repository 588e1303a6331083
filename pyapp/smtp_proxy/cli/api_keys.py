"""`smtp-proxy api-key …`: who may use the HTTP API."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

import typer

from smtp_proxy import tenants
from smtp_proxy.cli.arguments import JsonOption
from smtp_proxy.cli.connected import with_store
from smtp_proxy.cli.output import make_table, print_json, print_table, when
from smtp_proxy.clock import SystemClock
from smtp_proxy.model.api_key import ApiKey, ApiScope
from smtp_proxy.store import Store

api_key_app = typer.Typer(help="Keys of the HTTP API.", no_args_is_help=True)
TenantArgument = Annotated[str, typer.Argument(metavar="TENANT")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What it is called, such as the program it is for.")]


@api_key_app.command("create")
def api_key_create(
    context: typer.Context,
    tenant: TenantArgument,
    name: NameArgument,
    scope: Annotated[list[ApiScope], typer.Option("--scope", help="What it may do; may be given again.")],
    days: Annotated[int | None, typer.Option(min=1, max=36_500, help="It ends after so many; else never.")] = None,
) -> None:
    """Give a tenant a key. It is shown once, now."""
    now = SystemClock().now()
    expires_at = None if days is None else now + timedelta(days=days)

    async def work(store: Store) -> tuple[ApiKey, str]:
        return await tenants.create_api_key(store, tenant, name, scope, expires_at)

    kept, key = with_store(context, work)
    ends = "" if kept.expires_at is None else f", until {when(kept.expires_at)}"
    typer.echo(f"created API key {kept.name} of tenant {kept.tenant} for {_scopes(kept)}{ends}", err=True)
    typer.echo(key)


@api_key_app.command("list")
def api_key_list(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="Only of this tenant.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List keys, without anything secret."""

    async def work(store: Store) -> list[ApiKey]:
        owner = (await store.tenant_by_name(tenant)).id if tenant is not None else None
        return await store.list_api_keys(owner)

    found = with_store(context, work)
    if as_json:
        print_json([_as_dict(key) for key in found])
        return
    table = make_table("tenant", "name", "scopes", "created", "last used", "expires", "revoked")
    for key in found:
        moments = (key.created_at, key.last_used_at, key.expires_at, key.revoked_at)
        table.add_row(key.tenant, key.name, _scopes(key), *map(when, moments))
    print_table(table)


@api_key_app.command("revoke")
def api_key_revoke(context: typer.Context, tenant: TenantArgument, name: NameArgument) -> None:
    """Let a key open nothing from now on; its name is free again."""
    with_store(context, lambda store: store.revoke_api_key(tenant, name))
    typer.echo(f"revoked API key {name} of tenant {tenant}")


def _scopes(key: ApiKey) -> str:
    return ", ".join(sorted(key.scopes))


def _as_dict(key: ApiKey) -> dict[str, Any]:
    return {**asdict(key), "scopes": sorted(scope.value for scope in key.scopes)}
