"""Who may begin a transaction with which next hop, and when.

Each destination (`Route.destination`) has a line of its own, in which tenants take turns; who waits there holds none of
the worker's turns. A line that will take too long is not joined: its mail goes back to Postgres for a while (`Busy`),
so a destination that stands keeps no lease and no memory. Each next hop has a circuit breaker (`Blocked`), and each
destination a pace that its own replies set. How long things take is told in seconds in which this process was awake.

Not here: connections (`pool`), and what a reply means for a recipient (`classify`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from smtp_proxy.clock import SystemClock
from smtp_proxy.delivery.breaker import Breaker
from smtp_proxy.delivery.line import Line
from smtp_proxy.delivery.pace import PUT_OFF, TURNED_AWAY, Pace
from smtp_proxy.delivery.recent import make_room
from smtp_proxy.delivery.share import LEASE_SECONDS, Lease, Shares
from smtp_proxy.delivery.standstill import Standstill
from smtp_proxy.delivery.verdict import Verdict, verdict_of
from smtp_proxy.errors import DeliveryError
from smtp_proxy.model.attempt import Kind
from smtp_proxy.model.lane import Lane
from smtp_proxy.telemetry.metrics import BREAKER_OPENED, BREAKERS_OPEN, DESTINATIONS_SLOWED, LINE_WAITING, POSTPONED

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from smtp_proxy.clock import Clock
    from smtp_proxy.delivery.route import Route
    from smtp_proxy.delivery.transaction import Transcript
    from smtp_proxy.delivery.turn import Turn
    from smtp_proxy.stream.places import Places

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 5.0
LINE_MAX: Final = 500
_BACK_FIRST_SECONDS: Final = 5.0
_BACK_MAX_SECONDS: Final = 120.0
_BACK_JITTER: Final = 0.25
# Of a pause, for each that is away: hardly any wait in the line for the end of one, so more are to come than may go.
_BACK_OF_PAUSE: Final = 0.25
# What is known of so many destinations is kept; beyond that, those at rest are forgotten, and those that asked for less
# and were not used for so long.
_KEPT: Final = 5000
_FORGOTTEN_SECONDS: Final = 900.0


class Blocked(DeliveryError):
    """The next hop's breaker is open; nothing was asked of it."""


class Busy(DeliveryError):
    """The destination has more to do than it can; worth trying in `seconds`. Nothing was asked of it.

    Whoever goes away for that long says so by `Governor.sent_back`; another host may take it instead.
    """

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class Permit:
    """To run one transaction; given back with `Governor.leave`."""

    __slots__ = ("awake_at", "began_at", "destination", "lease", "probe", "probed", "route")

    def __init__(self, route: Route, destination: _Destination, began_at: float, awake_at: float) -> None:
        self.route = route
        self.destination = destination
        self.began_at = began_at
        self.awake_at = awake_at  # the same moment, as the line counts
        self.lease: Lease | None = None
        self.probed: Breaker | None = None  # half-open: should this transaction fail, it stays open
        self.probe = 0  # its number


class _Destination:
    def __init__(self, route: Route, now: float, awake: float) -> None:
        self.used_at = now
        self.line: Line[asyncio.Future[None]] = Line(awake)
        self.pace = Pace(min(route.connections, route.fleet_connections or route.connections))
        self.timer: asyncio.TimerHandle | None = None
        self._away: list[float] = []  # a heap: when those that were sent back are due again

    def sent_back(self, due: float) -> None:
        """One more is away until then."""
        heappush(self._away, due)

    def away(self, now: float) -> int:
        """How many were sent back and are not due yet."""
        while self._away and self._away[0] <= now:
            heappop(self._away)
        return len(self._away)

    def is_at_rest(self, now: float) -> bool:
        """Nothing would be lost by forgetting it, or nothing that still counts."""
        if self.line.in_use or len(self.line) or self.away(now):
            return False
        return self.pace.is_full or now - self.used_at > _FORGOTTEN_SECONDS


class Governor:
    """Of one worker."""

    def __init__(
        self,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
        *,
        places: Places | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        place_lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._clock = clock or SystemClock()
        self._chance = chance
        self._patience = patience_seconds
        self._shares = Shares(self._clock, places, place_lease_seconds)
        self._standstill = Standstill(self._clock)
        self._destinations: OrderedDict[tuple[str, str], _Destination] = OrderedDict()
        self._breakers: OrderedDict[tuple[str, Hashable], Breaker] = OrderedDict()

    async def enter(self, route: Route, tenant: Hashable, turn: Turn, lane: Lane = Lane.TRANSACTIONAL) -> Permit:
        """Wait for a place; the turn is lent meanwhile. Raises Blocked, Busy."""
        now = self._clock.monotonic()
        breaker = self._breaker_of(route)
        destination = self._destination(route, now)
        if breaker is not None and not breaker.may_go(now):
            raise self._closed(breaker, route, destination, now)
        if not destination.line and self._has_place(destination, now):
            self._begin(destination, now)
        else:
            await self._wait(destination, tenant, turn, now, lane)
            now = self._clock.monotonic()
            breaker = self._breaker_of(route)
        if breaker is not None and not breaker.allows(now):
            self._end(destination, None, now)
            raise self._closed(breaker, route, destination, now)
        permit = Permit(route, destination, now, self._awake(now))
        if breaker is not None and breaker.is_open:
            permit.probed, permit.probe = breaker, breaker.probe
        if route.is_limited:
            permit.lease = await self._share(permit, tenant)
        return permit

    def _closed(self, breaker: Breaker, route: Route, destination: _Destination, now: float) -> DeliveryError:
        """While a probe is under way nobody is put off by the schedule of retries: the answer is there in a moment."""
        if breaker.is_probed(now):
            back = self._back_seconds(destination, breaker.probed_seconds(now), now)
            return Busy(f"busy: {route.remote} is being probed", back)
        return Blocked(f"{route.remote} {breaker.text(now)}")

    async def close(self) -> None:
        """Wait for what is being given back to the fleet."""
        await self._shares.close()

    def leave(self, permit: Permit, transcript: Transcript | None) -> None:
        """The transaction is over; None: it was broken off, which says nothing of the destination."""
        now = self._clock.monotonic()
        verdict, text = Verdict.NOTHING, ""
        if transcript is not None:
            hung_up = transcript.hung_up and not _is_throttled(permit.route, transcript)
            verdict, text = verdict_of(transcript.results.values(), hung_up=hung_up)
            self._learn(permit, verdict, text, now)
        if verdict is Verdict.NOTHING:
            _give_probe_back(permit)
        if permit.lease is not None:
            self._shares.give_back(permit.lease)
        tells = verdict is not Verdict.NOTHING and permit.probed is None
        seconds = self._awake(now) - permit.awake_at if tells else None
        self._end(permit.destination, seconds, now, well=verdict is Verdict.WELL)

    def sent_back(self, route: Route, seconds: float) -> None:
        """Mail that was turned away by Busy is away for so long; who comes after it is to come back after it."""
        now = self._clock.monotonic()
        self._destination(route, now).sent_back(now + seconds)
        POSTPONED.labels(route.name).inc()

    async def _share(self, permit: Permit, tenant: Hashable) -> Lease:
        """A share of what the fleet may use. Raises Busy."""
        share: Lease | float = 0.0
        try:
            share = await self._shares.take(permit.route, tenant)
        finally:
            if not isinstance(share, Lease):
                _give_probe_back(permit)
                self._end(permit.destination, None, self._clock.monotonic())
        if isinstance(share, Lease):
            return share
        back = self._back_seconds(permit.destination, 0.0, self._clock.monotonic())
        raise Busy("busy: the limits of the route are used up", max(share, back))

    # -- the line

    def _awake(self, now: float) -> float:
        """As a line counts time: a moment in which this process stands still is none in which a destination is slow."""
        return self._standstill.awake_seconds(now)

    def _has_place(self, destination: _Destination, now: float) -> bool:
        pace = destination.pace
        return destination.line.in_use < pace.concurrency and pace.wait_seconds(now) <= 0

    def _begin(self, destination: _Destination, now: float) -> None:
        self._standstill.begin()
        destination.line.begin(self._awake(now))
        destination.pace.began(now)

    def _end(self, destination: _Destination, seconds: float | None, now: float, *, well: bool = True) -> None:
        """`seconds`: how long it took, None if nothing is learned from that."""
        destination.line.end(seconds, self._awake(now), well=well)
        self._standstill.end()
        if destination.line:
            self._call(destination, now)

    def _call(self, destination: _Destination, now: float) -> None:
        """Let in as many as there are places; look again when a pause is over."""
        line = destination.line
        while line and self._has_place(destination, now):
            place = line.take()
            if place is not None and not place.done():
                self._begin(destination, now)
                place.set_result(None)
        if line:
            self._look_again(destination, now)

    def _look_again(self, destination: _Destination, now: float) -> None:
        """One timer per line: for the end of a pause, and for those whose patience ends."""
        if destination.timer is not None:
            return
        pause = destination.pace.wait_seconds(now)
        seconds = pause if 0 < pause < self._patience else self._patience / 5
        destination.timer = asyncio.get_running_loop().call_later(seconds, self._look, destination)

    def _look(self, destination: _Destination) -> None:
        destination.timer = None
        now = self._clock.monotonic()
        for place in destination.line.overdue(self._awake(now) - self._patience):
            if not place.done():
                place.set_exception(self._busy(destination, now))
        self._call(destination, now)

    async def _wait(self, destination: _Destination, tenant: Hashable, turn: Turn, now: float, lane: Lane) -> None:
        line, awake = destination.line, self._awake(now)
        seconds = line.wait_seconds(tenant, awake, lane) + destination.pace.pause_seconds * len(line)
        if len(line) >= LINE_MAX or seconds > self._patience or not turn.lend(seconds):
            raise self._busy(destination, now)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.join(tenant, place, awake, lane)
        LINE_WAITING.inc()
        self._look_again(destination, now)
        try:
            await self._until_called(destination, tenant, place)
        except Busy:
            await turn.regain()
            raise
        try:
            await turn.regain()
        except BaseException:
            self._end(destination, None, self._clock.monotonic())
            raise

    async def _until_called(self, destination: _Destination, tenant: Hashable, place: asyncio.Future[None]) -> None:
        try:
            await place
        except asyncio.CancelledError:
            destination.line.give_up(tenant, place)
            if place.done() and not place.cancelled() and place.exception() is None:
                self._end(destination, None, self._clock.monotonic())  # the place was given, and is passed on
            raise
        finally:
            LINE_WAITING.dec()

    def _busy(self, destination: _Destination, now: float) -> Busy:
        line = destination.line
        back = self._back_seconds(destination, line.stood_seconds(self._awake(now)), now)
        return Busy(f"busy: {len(line)} wait for it, {line.in_use} are under way", back)

    def _back_seconds(self, destination: _Destination, stood: float, now: float) -> float:
        """After those that were sent away before, as many at once as may be and each as long as those that went well.

        Not by how a probe gets on, or what fails: that is over when they are back, or they are told again.

        `stood`: for how long nothing has come of what is under way. That is no pace: it may go on, or be over in a
        moment, so who comes meanwhile asks again when it has lasted about twice as long.
        """
        pace = destination.pace
        each = max(destination.line.pace_seconds(pace.concurrency), _BACK_OF_PAUSE * pace.pause_seconds)
        back = max(_BACK_FIRST_SECONDS, each * (destination.away(now) + 1), pace.pause_seconds, stood)
        back = min(_BACK_MAX_SECONDS, back)
        return back * (1 + _BACK_JITTER * (2 * self._chance() - 1))

    # -- what is learned

    def _learn(self, permit: Permit, verdict: Verdict, text: str, now: float) -> None:
        if verdict is Verdict.WELL or verdict is Verdict.PUT_OFF:
            self._reached(permit)
        elif verdict is not Verdict.NOTHING:
            self._failed(permit, text, now)
        pace = permit.destination.pace
        was_full = pace.is_full
        if verdict is Verdict.WELL:
            if was_full:
                return
            pace.went_well()
        elif verdict in (Verdict.PUT_OFF, Verdict.TURNED_AWAY):
            factor = PUT_OFF if verdict is Verdict.PUT_OFF else TURNED_AWAY
            if pace.slow_down(factor, permit.began_at, now):
                log.info(
                    "%s asks for less: %d at once, %.2f s between: %s",
                    permit.route.remote, pace.concurrency, pace.pause_seconds, text,
                    extra={"action": "slowed_down", "remote": permit.route.remote},
                )  # fmt: skip
        if pace.is_full != was_full:
            (DESTINATIONS_SLOWED.inc if was_full else DESTINATIONS_SLOWED.dec)()

    def _breaker_of(self, route: Route) -> Breaker | None:
        return self._breakers.get(_hop(route)) if self._breakers else None

    def _reached(self, permit: Permit) -> None:
        route = permit.route
        breaker = self._breakers.pop(_hop(route), None) if self._breakers else None
        if breaker is None:
            return
        if breaker.is_open:
            permit.destination.line.recovered()
            BREAKERS_OPEN.labels(route.name).dec()
            log.info("%s is back", route.remote, extra={"action": "breaker_closed", "remote": route.remote})
        breaker.succeeded()

    def _failed(self, permit: Permit, text: str, now: float) -> None:
        route, key = permit.route, _hop(permit.route)
        breaker = self._breakers.get(key)
        if breaker is None:
            self._forget_breakers(now)
            breaker = self._breakers[key] = Breaker(self._chance)
        was_open = breaker.is_open
        if breaker.failed(now, text, permit.probe if permit.probed is breaker else 0):
            BREAKER_OPENED.labels(route.name).inc()
            if not was_open:
                BREAKERS_OPEN.labels(route.name).inc()
            log.warning(
                "%s %s", route.remote, breaker.text(now), extra={"action": "breaker_open", "remote": route.remote}
            )

    # -- what is remembered

    def _destination(self, route: Route, now: float) -> _Destination:
        key = route.destination
        destination = self._destinations.get(key)
        if destination is None:
            for _, forgotten in make_room(self._destinations, _KEPT, lambda kept: kept.is_at_rest(now)):
                if not forgotten.pace.is_full:
                    DESTINATIONS_SLOWED.dec()
            destination = self._destinations[key] = _Destination(route, now, self._awake(now))
        else:
            destination.used_at = now
            self._destinations.move_to_end(key)
        return destination

    def _forget_breakers(self, now: float) -> None:
        """Those that would let mail through, which is then the probe; all of a next hop that stays away come back."""
        for (route_name, _), breaker in make_room(self._breakers, _KEPT, lambda breaker: breaker.may_go(now)):
            if breaker.is_open:
                BREAKERS_OPEN.labels(route_name).dec()


def _give_probe_back(permit: Permit) -> None:
    """Nothing was learned of the next hop, so whoever comes next may be the probe, unless another is already."""
    if permit.probed is not None:
        permit.probed.not_asked(permit.probe)


def _is_throttled(route: Route, transcript: Transcript) -> bool:
    """An API that says "too fast" is well, and its provider has a pace for that: no reason to open a circuit."""
    results = transcript.results.values()
    return route.provider is not None and all(r.kind is Kind.QUOTA and r.reply_code for r in results)


def _hop(route: Route) -> tuple[str, Hashable]:
    """What a breaker is for. Whoever demands more of a host's TLS than others do may fail there alone."""
    return route.name, (route.remote, route.tls, route.tls_context, route.dane, route.dane_name, route.tls_pins)
