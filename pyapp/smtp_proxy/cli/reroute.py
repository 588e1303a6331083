"""`smtp-proxy messages reroute`: queued and held mail goes another way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from smtp_proxy.cli.arguments import settings_of
from smtp_proxy.cli.connected import with_store
from smtp_proxy.cli.messages import parse_id, tell_in_hand
from smtp_proxy.delivery.routing.file import RoutesFile, read_routes
from smtp_proxy.delivery.routing.planner import domain_of
from smtp_proxy.delivery.routing.table import routes_for
from smtp_proxy.errors import InvalidValue, NotFound
from smtp_proxy.model.change import Reroute
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.store import Store

if TYPE_CHECKING:
    from uuid import UUID

    from smtp_proxy.config import Settings
    from smtp_proxy.model.tenant import Tenant

_DEFAULT = "default"
_BOTH = (DeliveryState.QUEUED, DeliveryState.HELD)
_STATES = {"deferred": (DeliveryState.QUEUED,), "held": (DeliveryState.HELD,)}
# Messages rerouted between two words about it.
_TELL_EVERY = 10_000


def messages_reroute(
    context: typer.Context,
    route: Annotated[
        str,
        typer.Option(
            "--route", metavar="NAME", help="A route of ROUTES_FILE, or smarthost; default: as its rules say."
        ),
    ],
    message_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="All of this tenant.")] = None,
    domain: Annotated[
        str | None, typer.Option("--domain", metavar="DOMAIN", help="Only what goes to recipients there.")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option("--state", metavar="STATE", help="Only what is deferred, or held. Without: all that waits."),
    ] = None,
) -> None:
    """Send queued and held mail another way: some messages, or all that a tenant has now, oldest first.

    What is deferred is tried at once; what is held goes that way when it is released.
    """
    if bool(message_ids) == (tenant is not None):
        raise InvalidValue("name either messages or --tenant NAME")
    reroute, settings = _parsed(route, domain, state), settings_of(context)
    if tenant is not None:
        count, in_hand = with_store(context, lambda store: _all_of(store, settings, reroute, tenant))
        _tell(count, route)
        tell_in_hand("rerouted", in_hand)
        return
    wanted = [parse_id(text) for text in message_ids or ()]
    rerouted, in_hand = with_store(context, lambda store: _named(store, settings, reroute, wanted))
    _tell(len(rerouted), route)
    tell_in_hand("rerouted", in_hand)
    if left := [str(message_id) for message_id in wanted if message_id not in rerouted]:
        raise NotFound(f"nothing of it waits as you said: {', '.join(left)}")


def _tell(count: int, route: str) -> None:
    way = "as the routes say" if route == _DEFAULT else f"to {route}"
    typer.echo(f"rerouted {count} {'message' if count == 1 else 'messages'} {way}")


def _parsed(route: str, domain: str | None, state: str | None) -> Reroute:
    if state is not None and state.lower() not in _STATES:
        raise InvalidValue(f"--state {state}: use one of {', '.join(_STATES)}")
    domains: tuple[str, ...] = ()
    if domain is not None:
        domains = tuple(dict.fromkeys((domain_of(domain), domain.rpartition("@")[2].lower())))
        if not domains[0].strip("."):
            raise InvalidValue(f"--domain {domain!r}: it is no domain")
    return Reroute(
        None if route == _DEFAULT else route,
        _BOTH if state is None else _STATES[state.lower()],
        deferred_alone=state is not None and state.lower() == "deferred",
        domains=domains,
    )


async def _all_of(store: Store, settings: Settings, reroute: Reroute, name: str) -> tuple[int, int]:
    """How many messages were rerouted, and how many a worker had in hand: at the start, or at the end if more."""
    owner = await store.tenant_by_name(name)
    _check(settings, reroute, owner)
    in_hand = await store.in_hand(tenant_id=owner.id)
    total = said = 0
    async for count in store.reroute_all(reroute, owner.id):
        total += count
        if total - said >= _TELL_EVERY:
            said = total
            typer.echo(f"{total} messages so far", err=True)
    return total, max(in_hand, await store.in_hand(tenant_id=owner.id))


async def _named(store: Store, settings: Settings, reroute: Reroute, wanted: list[UUID]) -> tuple[list[UUID], int]:
    tenants = {tenant.id: tenant for tenant in await store.list_tenants()}
    for owner in {(await store.message(message_id)).summary.tenant_id for message_id in wanted}:
        if owner in tenants:
            _check(settings, reroute, tenants[owner])
    in_hand = await store.in_hand(envelope_ids=wanted)
    rerouted = await store.reroute(reroute, wanted)
    return rerouted, max(in_hand, await store.in_hand(envelope_ids=wanted))


def _check(settings: Settings, reroute: Reroute, tenant: Tenant) -> None:
    """Raises InvalidValue: there is no such route, or it is other tenants' alone; ConfigurationError: a bad file."""
    if reroute.route is None:
        return
    file = RoutesFile() if settings.routes_file is None else read_routes(settings.routes_file)
    allowed = routes_for(file, tenant.name, str(tenant.id))
    if reroute.route not in allowed:
        raise InvalidValue(
            f"--route {reroute.route}: tenant {tenant.name} has no such route; use one of "
            f"{', '.join([*allowed, _DEFAULT])} (ROUTES_FILE)"
        )
