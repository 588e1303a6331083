"""The planner that the settings ask for, with what it needs around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtp_proxy.delivery.leg import Planner, Routes
from smtp_proxy.delivery.mx.hosts import MailHosts
from smtp_proxy.delivery.mx.resolver import Resolver
from smtp_proxy.delivery.mx.sts import HttpsFetch, PublicHosts, StsPolicies
from smtp_proxy.delivery.route import smarthost
from smtp_proxy.delivery.routing.load import Surroundings
from smtp_proxy.delivery.routing.watch import RoutesOfFile
from smtp_proxy.stream.paces import Paces

if TYPE_CHECKING:
    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings
    from smtp_proxy.delivery.routing.planner import TenantName


class RoutesOfSettings:
    """`planner` for the transport; `watched.run` beside it, where there is a file; `close` at the end."""

    def __init__(
        self,
        planner: Planner,
        watched: RoutesOfFile | None = None,
        fetch: HttpsFetch | None = None,
        paces: Paces | None = None,
    ) -> None:
        self.planner = planner
        self.watched = watched
        self._fetch = fetch
        self._paces = paces

    @classmethod
    def of(cls, settings: Settings, clock: Clock, tenant_name: TenantName) -> RoutesOfSettings:
        """The routes file, or the smarthost alone. Raises ConfigurationError, CertificateProblem."""
        base = smarthost(settings)
        if settings.routes_file is None:
            return cls(Routes(base))
        resolver = Resolver.of(settings)
        fetch = HttpsFetch(PublicHosts(MailHosts(resolver)))
        policies = StsPolicies(resolver, fetch, clock)
        paces = Paces(settings)
        around = Surroundings(base, resolver, policies, settings.hostname, clock, tenant_name, paces)
        watched = RoutesOfFile(settings.routes_file, around)
        return cls(watched, watched, fetch, paces)

    async def close(self) -> None:
        if self._fetch is not None:
            await self._fetch.close()
        if self._paces is not None:
            await self._paces.close()
