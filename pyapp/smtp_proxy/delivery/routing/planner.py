"""The plan: each recipient by its rule, recipients of one destination together; see `delivery.leg.Planner`."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smtp_proxy.delivery.leg import Leg
from smtp_proxy.delivery.mx.hosts import Undeliverable
from smtp_proxy.delivery.route import SMARTHOST
from smtp_proxy.delivery.routing.file import ascii_domain
from smtp_proxy.delivery.routing.table import Choice
from smtp_proxy.errors import StoreUnavailable
from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from uuid import UUID

    from smtp_proxy.delivery.route import Route
    from smtp_proxy.delivery.routing.table import RouteTable
    from smtp_proxy.delivery.routing.ways import Way
    from smtp_proxy.model.envelope import Job, Recipient

    # The name of a tenant by its id. Raises StoreUnavailable.
    TenantName = Callable[[UUID], Awaitable[str]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """Where one domain's mail goes, and what said so; for the plan and for whoever asks."""

    choice: Choice
    candidates: tuple[Route, ...]
    trouble: Undeliverable | None = None


class RoutePlanner:
    """Plans by one state of the routes file. `ways` by the names of the routes."""

    def __init__(self, table: RouteTable, ways: Mapping[str, Way], tenant_name: TenantName) -> None:
        self._table = table
        self._ways = ways
        self._tenant_name = tenant_name

    async def plan(self, job: Job) -> list[Leg]:
        try:
            tenant = await self._tenant_name(job.envelope.tenant_id) if self._table.asks_tenant else None
        except StoreUnavailable as error:
            trouble = Undeliverable(
                Outcome.DEFERRED, "4.3.0", f"whose mail it is can not be asked: {error}", Kind.LOCAL
            )
            return [_decided(job.recipients, trouble)]
        by_way: dict[tuple[str, str | None], list[Recipient]] = {}
        for recipient in job.recipients:
            by_way.setdefault((domain_of(recipient.address), recipient.route), []).append(recipient)
        tenant_id = str(job.envelope.tenant_id)
        found = await asyncio.gather(*(self.find(domain, tenant, tenant_id, route) for domain, route in by_way))
        return _legs(zip(by_way.values(), found, strict=True))

    async def find(self, domain: str, tenant: str | None, tenant_id: str = "", route: str | None = None) -> Found:
        """Candidates of every route that the rule names, in that order; of `route` alone, if an operator chose one."""
        choice = self._table.choose(domain, tenant, tenant_id)
        if route is not None:
            choice = Choice((route,), "an operator")
            if route not in self._ways:
                return Found(choice, (), _no_such(route))
        candidates: list[Route] = []
        trouble: Undeliverable | None = None
        for name in choice.routes:
            try:
                candidates += await self._ways[name].candidates(domain, tenant)
            except Undeliverable as undeliverable:
                trouble = trouble or undeliverable
                if undeliverable.outcome is Outcome.REFUSED:
                    break  # the domain takes no mail, whichever way it comes
        if not candidates and trouble is None:
            trouble = Undeliverable(Outcome.DEFERRED, "4.3.5", "no route has a host", Kind.LOCAL)
        return Found(choice, tuple(candidates), trouble if not candidates else None)


def domain_of(address: str) -> str:
    """The domain in A-labels, or an address literal as it is; what is no domain is left for the next hop to judge."""
    domain = address.rpartition("@")[2]
    if domain.startswith("["):
        return domain.lower()
    try:
        return ascii_domain(domain)
    except ValueError:
        return domain.lower()


def _no_such(route: str) -> Undeliverable:
    """An operator chose it, and the file has it no more: the rules were not to count, so it waits for somebody."""
    text = (
        f"it was rerouted to {route}, which ROUTES_FILE does not have: put it there, or "
        "`smtp-proxy messages reroute --route default`"
    )
    return Undeliverable(Outcome.DEFERRED, "4.3.5", text, Kind.LOCAL)


def _legs(found: zip[tuple[list[Recipient], Found]]) -> list[Leg]:
    """Recipients with the same candidates share a leg."""
    shared: dict[frozenset[int], tuple[list[Recipient], tuple[Route, ...]]] = {}
    legs: list[Leg] = []
    for recipients, way in found:
        if way.trouble is not None:
            legs.append(_decided(recipients, way.trouble))
            continue
        together, _ = shared.setdefault(frozenset(map(id, way.candidates)), ([], way.candidates))
        together += recipients
    return legs + [Leg(tuple(recipients), candidates) for recipients, candidates in shared.values()]


def _decided(recipients: Sequence[Recipient], trouble: Undeliverable) -> Leg:
    results = tuple(
        RecipientResult(r.number, trouble.outcome, 0, trouble.enhanced_code, str(trouble), "", trouble.kind)
        for r in recipients
    )
    return Leg(tuple(recipients), (), results)


__all__ = ["SMARTHOST", "Found", "RoutePlanner", "domain_of"]
