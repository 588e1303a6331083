"""What one destination, and one tenant at it, may use of a route: over the fleet, or by own count.

Not here: the counting over the fleet (`stream.places`), and the line before a destination (`governor`).
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from typing import TYPE_CHECKING, Final

from smtp_proxy.errors import StreamUnavailable
from smtp_proxy.stream.places import Limit
from smtp_proxy.telemetry.tasks import end

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from smtp_proxy.clock import Clock
    from smtp_proxy.delivery.route import Route
    from smtp_proxy.stream.places import Places

log = logging.getLogger(__name__)

# A place is renewed while its transaction lasts; those of a worker that died are free by then.
LEASE_SECONDS: Final = 120.0
_TRIES: Final = 10
_TRY_SECONDS: Final = 0.1
_MINUTE_SECONDS: Final = 60.0
_AWAY_SECONDS: Final = 2.0


class Lease:
    """Places under the limits of a route, for one transaction."""

    __slots__ = ("fleetwide", "limits", "name")

    def __init__(self, limits: Sequence[Limit]) -> None:
        self.limits = limits
        self.name = uuid.uuid4().hex
        self.fleetwide = False


class Shares:
    """`places` None: this worker is the fleet."""

    def __init__(self, clock: Clock, places: Places | None = None, lease_seconds: float = LEASE_SECONDS) -> None:
        self._clock = clock
        self._places = places
        self._lease_seconds = lease_seconds
        self._held: set[Lease] = set()  # places over the fleet
        self._renewing: asyncio.Task[None] | None = None
        self._own = OwnCount()
        self._away_until = 0.0
        self._giving: set[asyncio.Task[None]] = set()

    async def take(self, route: Route, tenant: Hashable) -> Lease | float:
        """A lease, or in how many seconds to try again. Waits a second for a place that others use."""
        lease = Lease(limits_of(route, tenant))
        wait = 0.0
        for _ in range(_TRIES):
            wait = await self._try(lease)
            if not wait:
                return lease
            if wait > 1.0:
                break
            await asyncio.sleep(_TRY_SECONDS)
        return wait

    def give_back(self, lease: Lease) -> None:
        """The transaction is over."""
        if not lease.fleetwide:
            self._own.give_back(lease.limits)
        elif lease in self._held:
            self._held.discard(lease)
            giving = asyncio.create_task(self._give_back(lease))
            self._giving.add(giving)
            giving.add_done_callback(self._giving.discard)

    async def close(self) -> None:
        """Wait for what is being given back, and renew nothing more."""
        if self._renewing is not None:
            await end([self._renewing])
        await asyncio.gather(*self._giving)

    async def _try(self, lease: Lease) -> float:
        now = self._clock.monotonic()
        if self._places is not None and now >= self._away_until:
            try:
                lease.fleetwide = True
                wait = await self._places.take(lease.name, lease.limits, self._lease_seconds)
            except StreamUnavailable as error:
                self._away_until = self._clock.monotonic() + _AWAY_SECONDS
                log.warning("limits by this worker's own count: %s", error, extra={"action": "limits_alone"})
            else:
                if not wait and any(limit.at_once for limit in lease.limits):
                    self._hold(lease)
                return wait
        lease.fleetwide = False
        return self._own.take(lease.limits, now)

    def _hold(self, lease: Lease) -> None:
        self._held.add(lease)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew(), name="place leases")

    async def _renew(self) -> None:
        """Every third of a lease, as long as any is held: a slow server must not make room for more than it wants."""
        while self._held:
            began = set(self._held)
            await asyncio.sleep(self._lease_seconds / 3)
            lasting = [(lease.name, lease.limits) for lease in self._held & began]
            if lasting and self._places is not None:
                try:
                    await self._places.renew(lasting, self._lease_seconds)
                except StreamUnavailable as error:
                    log.warning("places are not renewed: %s", error, extra={"action": "places_not_renewed"})

    async def _give_back(self, lease: Lease) -> None:
        try:
            if self._places is not None:
                await self._places.give_back(lease.name, lease.limits)
        except StreamUnavailable:
            pass  # they run out


class OwnCount:
    """As `stream.places`, of one process. Pure: time is given, monotonic seconds."""

    def __init__(self) -> None:
        self._at_once: dict[str, int] = {}
        self._minutes: dict[str, deque[float]] = {}

    def take(self, limits: Sequence[Limit], now: float) -> float:
        """0: taken under every limit; else nothing is, try in so many seconds."""
        for limit in limits:
            if limit.at_once and self._at_once.get(limit.name, 0) >= limit.at_once:
                return 1.0
            minute = self._minutes.get(limit.name)
            while minute and minute[0] <= now - _MINUTE_SECONDS:
                minute.popleft()
            if minute and limit.per_minute and len(minute) >= limit.per_minute:
                return minute[0] + _MINUTE_SECONDS - now
        for limit in limits:
            if limit.at_once:
                self._at_once[limit.name] = self._at_once.get(limit.name, 0) + 1
            if limit.per_minute:
                self._minutes.setdefault(limit.name, deque()).append(now)
        return 0.0

    def give_back(self, limits: Sequence[Limit]) -> None:
        for limit in limits:
            if limit.at_once:
                self._at_once[limit.name] -= 1
                if not self._at_once[limit.name]:
                    del self._at_once[limit.name]


def limits_of(route: Route, tenant: Hashable) -> list[Limit]:
    """Of the destination, and of the tenant at it, where the route has any."""
    where = "\n".join(route.destination)
    limits = (
        Limit(where, route.fleet_connections, route.messages_per_minute),
        Limit(f"{where}\n{tenant}", route.tenant_connections, route.tenant_messages_per_minute),
    )
    return [limit for limit in limits if limit.at_once or limit.per_minute]
