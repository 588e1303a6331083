"""The limits of a route, by a worker's own count and over Redis that is away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from virtual_time import LoopClock

from smtp_proxy.delivery.breaker import COOL_DOWN_SECONDS, FAILURES
from smtp_proxy.delivery.governor import Busy, Governor
from smtp_proxy.delivery.route import Route
from smtp_proxy.delivery.share import OwnCount, limits_of
from smtp_proxy.delivery.transaction import Transcript
from smtp_proxy.delivery.turn import FREE_TURN
from smtp_proxy.errors import StreamUnavailable
from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult
from smtp_proxy.stream.places import Limit

ROUTE = Route("mx.example", 25, "none", "proxy.example", connections=10)
NOTHING = Transcript({})


async def test_a_tenants_places_are_its_own() -> None:
    ruler = Governor(LoopClock(), lambda: 0.5)
    route = replace(ROUTE, tenant_connections=2)
    permits = [await ruler.enter(route, "a", FREE_TURN) for _ in range(2)]
    with pytest.raises(Busy, match="limits of the route"):
        await ruler.enter(route, "a", FREE_TURN)
    await ruler.enter(route, "b", FREE_TURN)
    ruler.leave(permits[0], NOTHING)
    await ruler.enter(route, "a", FREE_TURN)


async def test_a_minute_is_not_exceeded_and_then_over() -> None:
    ruler = Governor(LoopClock(), lambda: 0.5)
    route = replace(ROUTE, messages_per_minute=3)
    for _ in range(3):
        ruler.leave(await ruler.enter(route, "a", FREE_TURN), NOTHING)
    with pytest.raises(Busy) as busy:
        await ruler.enter(route, "a", FREE_TURN)
    assert 50 < busy.value.seconds <= 60
    await asyncio.sleep(61)
    await ruler.enter(route, "a", FREE_TURN)


class AwayPlaces:
    asked = 0

    async def take(self, lease: str, limits: Sequence[Limit], lease_seconds: float) -> float:
        self.asked += 1
        raise StreamUnavailable

    async def give_back(self, lease: str, limits: Sequence[Limit]) -> None:
        raise StreamUnavailable

    async def close(self) -> None:
        pass


class RunningOut:
    """Places that run out, as those in Redis do."""

    def __init__(self, clock: LoopClock) -> None:
        self.until: dict[str, float] = {}
        self._clock = clock
        self.renewals = 0

    async def take(self, lease: str, limits: Sequence[Limit], lease_seconds: float) -> float:
        now = self._clock.monotonic()
        if sum(until > now for until in self.until.values()) >= limits[0].at_once:
            return 2.0
        self.until[lease] = now + lease_seconds
        return 0.0

    async def renew(self, leases: Sequence[tuple[str, Sequence[Limit]]], lease_seconds: float) -> None:
        self.renewals += 1
        if self.renewals == 2:
            raise StreamUnavailable
        for name, _ in leases:
            if name in self.until:
                self.until[name] = self._clock.monotonic() + lease_seconds

    async def give_back(self, lease: str, limits: Sequence[Limit]) -> None:
        self.until.pop(lease, None)


async def test_a_transaction_longer_than_the_lease_keeps_its_place() -> None:
    """It once ran out after two minutes, and a second worker was let in beside it."""
    clock = LoopClock()
    places = RunningOut(clock)
    one, other = (Governor(clock, lambda: 0.5, places=places) for _ in range(2))  # type: ignore[arg-type]
    route = replace(ROUTE, fleet_connections=1)
    permit = await one.enter(route, "a", FREE_TURN)
    for _ in range(20):
        await asyncio.sleep(60)  # up to twenty minutes; one renewal fails meanwhile
        with pytest.raises(Busy):
            await other.enter(route, "a", FREE_TURN)
    one.leave(permit, NOTHING)
    await asyncio.sleep(1)
    other.leave(await other.enter(route, "a", FREE_TURN), NOTHING)
    await asyncio.sleep(1)
    renewals = places.renewals
    await asyncio.sleep(600)
    assert places.renewals == renewals, "nothing is held, so nothing is renewed"
    await one.close()
    await other.close()


async def test_without_redis_each_worker_counts_for_itself_and_does_not_ask_each_time() -> None:
    places = AwayPlaces()
    ruler = Governor(LoopClock(), lambda: 0.5, places=places)  # type: ignore[arg-type]
    route = replace(ROUTE, tenant_connections=5)
    for _ in range(5):
        await ruler.enter(route, "a", FREE_TURN)
    assert places.asked == 1
    with pytest.raises(Busy):
        await ruler.enter(route, "a", FREE_TURN)


def test_what_one_limit_refuses_takes_nothing_of_another() -> None:
    own, wide, narrow = OwnCount(), Limit("a", 2, 0), Limit("b", 1, 0)
    assert own.take([wide, narrow], 0.0) == 0
    assert own.take([wide, narrow], 0.0) == 1
    assert own.take([wide], 0.0) == 0
    assert own.take([wide], 0.0) == 1


def test_limits_name_the_destination_and_the_tenant_at_it() -> None:
    route = replace(ROUTE, domain="example.net", fleet_connections=3, tenant_messages_per_minute=9)
    assert limits_of(route, "t") == [Limit("smarthost\nexample.net", 3, 0), Limit("smarthost\nexample.net\nt", 0, 9)]
    assert limits_of(ROUTE, "t") == []


async def half_open(ruler: Governor, route: Route) -> None:
    gone = Transcript({0: RecipientResult(0, Outcome.DEFERRED, 0, "", "gone", "", Kind.NETWORK)}, hung_up=True)
    for _ in range(FAILURES):
        ruler.leave(await ruler.enter(route, "b", FREE_TURN), gone)
    await asyncio.sleep(COOL_DOWN_SECONDS * 1.3)


async def test_a_probe_that_the_limits_keep_back_leaves_the_next_one_to_be_it() -> None:
    """It once stood as "being probed" for a minute though nothing was under way."""
    ruler = Governor(LoopClock(), lambda: 0.5)
    route = replace(ROUTE, tenant_connections=1)
    await half_open(ruler, route)
    held = await ruler.enter(replace(route, tls="implicit"), "a", FREE_TURN)  # the limit is used up, another breaker
    with pytest.raises(Busy, match="limits of the route"):
        await ruler.enter(route, "a", FREE_TURN)
    probe = await ruler.enter(route, "b", FREE_TURN)
    with pytest.raises(Busy, match="being probed"):
        await ruler.enter(route, "c", FREE_TURN)
    ruler.leave(held, NOTHING)  # no probe, so this gives nothing back
    with pytest.raises(Busy, match="being probed"):
        await ruler.enter(route, "c", FREE_TURN)
    ruler.leave(probe, NOTHING)


@pytest.mark.parametrize("came_to", [NOTHING, None])
async def test_a_probe_that_asked_nothing_leaves_the_next_one_to_be_it(came_to: Transcript | None) -> None:
    ruler = Governor(LoopClock(), lambda: 0.5)
    await half_open(ruler, ROUTE)
    ruler.leave(await ruler.enter(ROUTE, "a", FREE_TURN), came_to)
    await ruler.enter(ROUTE, "a", FREE_TURN)
    with pytest.raises(Busy, match="being probed"):
        await ruler.enter(ROUTE, "a", FREE_TURN)
