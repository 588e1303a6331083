"""`smtp-proxy routes …`: whether the routes file is right, and which way a recipient's mail would go."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from uuid import UUID

import typer

from smtp_proxy.cli.arguments import JsonOption, settings_of
from smtp_proxy.cli.output import make_table, print_json, print_table
from smtp_proxy.clock import SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.delivery.route import Route, smarthost
from smtp_proxy.delivery.routing.file import RoutesFile
from smtp_proxy.delivery.routing.planner import Found, RoutePlanner, domain_of
from smtp_proxy.delivery.routing.start import RoutesOfSettings
from smtp_proxy.delivery.routing.table import RouteTable
from smtp_proxy.delivery.routing.ways import OneRoute
from smtp_proxy.errors import InvalidValue

routes_app = typer.Typer(help="Which way mail goes (ROUTES_FILE, docs/ROUTES.md).", no_args_is_help=True)


@routes_app.command("check")
def check(context: typer.Context) -> None:
    """Read the routes file as the worker does, with its secrets and CA files; nothing is sent."""
    settings = settings_of(context)

    async def checked() -> None:
        await RoutesOfSettings.of(settings, SystemClock(), _no_tenant).close()

    asyncio.run(checked())
    typer.echo(
        "no ROUTES_FILE: all mail goes to the smarthost" if settings.routes_file is None else "the routes are good"
    )


@routes_app.command("show")
def show(
    context: typer.Context,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="A recipient, or a domain.")],
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="As mail of this tenant.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which rule counts for ADDRESS, and the hosts that would be asked, in order, as DNS has them now."""
    domain = domain_of(address)
    if not domain.strip("."):
        raise InvalidValue(f"{address!r} is no address and no domain")
    found = asyncio.run(_find(settings_of(context), domain, tenant))
    rows = [_row(route) for route in found.candidates]
    trouble = found.trouble
    if as_json:
        said = trouble and {
            "outcome": trouble.outcome.name.lower(),
            "enhanced_code": trouble.enhanced_code,
            "text": str(trouble),
        }
        print_json({"domain": domain, "because": found.choice.because, "candidates": rows, "trouble": said})
        return
    typer.echo(f"{domain}: {found.choice.because} -> {', '.join(found.choice.routes)}")
    if trouble is not None:
        typer.echo(f"{trouble.outcome.name.lower()}: {trouble.enhanced_code} {trouble}")
        return
    table = make_table("route", "next hop", "TLS", "login", "DKIM")
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("route", "next_hop", "tls", "login", "dkim")))
    print_table(table)


async def _find(settings: Settings, domain: str, tenant: str | None) -> Found:
    routes = RoutesOfSettings.of(settings, SystemClock(), _no_tenant)
    try:
        planner = routes.watched.planner if routes.watched is not None else _of_settings(settings)
        return await planner.find(domain, tenant)
    finally:
        await routes.close()


def _of_settings(settings: Settings) -> RoutePlanner:
    return RoutePlanner(RouteTable(RoutesFile()), {"smarthost": OneRoute(smarthost(settings))}, _no_tenant)


async def _no_tenant(tenant_id: UUID) -> str:
    raise InvalidValue(f"no mail is planned here, so nobody asks for tenant {tenant_id}")


def _row(route: Route) -> dict[str, Any]:
    login = "XOAUTH2" if route.token is not None else "password" if route.username else "-"
    return {"route": route.name, "next_hop": route.remote, "tls": _tls(route), "login": login, "dkim": route.dkim}


def _tls(route: Route) -> str:
    """What the server must show."""
    if route.tls in ("none", "opportunistic"):
        return route.tls
    must = [f"DANE ({len(route.dane)} TLSA)"] if route.dane else []
    if route.tls_context is not None and route.tls_context.check_hostname:
        must.append("certificate of its name")
    must += [f"one of {len(route.tls_pins)} pins"] if route.tls_pins else []
    return f"{route.tls}: {', '.join(must) or 'any certificate'}"
