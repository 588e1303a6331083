"""One pace for all workers, in a real Valkey: two processes' views of one Redis, and Redis away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
from fix_valkey import ValkeyServer
from remaining import Remaining

from smtp_proxy.clock import SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.delivery.providers.pace import FleetPace
from smtp_proxy.errors import StreamUnavailable
from smtp_proxy.stream.paces import Paces, Rates

pytestmark = pytest.mark.integration

PATIENCE = 5.0


def paces_at(valkey: ValkeyServer) -> Paces:
    """With more time than half a second: on a busy machine that is not enough to be sure that Redis answers."""
    paces = Paces(Settings.load({"redis_url": valkey.url, "redis_timeout_seconds": "10"}, {}))
    paces._timeout_seconds = 10.0
    return paces


def pace_of(paces: Paces, most: float = 100.0) -> FleetPace:
    return FleetPace("ses eu", most, SystemClock(), paces, lambda: 0.5)


def answered_all(*all_paces: FleetPace) -> bool:
    """Else one of them would have gone at its own pace, for a while."""
    return all(pace._away_until == 0.0 for pace in all_paces)


@pytest.fixture
async def two(valkey: ValkeyServer) -> AsyncIterator[tuple[FleetPace, FleetPace]]:
    """Workers of one fleet."""
    paces = [paces_at(valkey) for _ in range(2)]
    yield pace_of(paces[0]), pace_of(paces[1])
    for each in paces:
        await each.close()


@pytest.fixture
async def fleet(two: tuple[FleetPace, FleetPace]) -> AsyncIterator[tuple[FleetPace, FleetPace]]:
    """The same, with a Redis that is there all along."""
    yield two
    assert answered_all(*two), "Redis did not answer, so this was no test of the fleet's pace"


async def told(pace: FleetPace, what: Callable[[], object]) -> None:
    """Say it, and wait until Redis knows."""
    what()
    assert pace._paces is not None
    await pace._paces.told()


async def test_all_workers_share_the_accounts_rate(fleet: tuple[FleetPace, FleetPace]) -> None:
    one, other = fleet
    began = time.monotonic()
    assert await one.take(100, PATIENCE) == 0, "a second's worth may go at once"
    assert await other.take(100, PATIENCE) == Remaining(0, began)
    assert await one.take(100, PATIENCE) == Remaining(1, began)
    assert await other.take(100, PATIENCE) == Remaining(2, began)


async def test_a_refusal_of_one_slows_all_and_success_mends_it(fleet: tuple[FleetPace, FleetPace]) -> None:
    one, other = fleet
    began = time.monotonic()
    await told(one, one.too_fast)
    assert await other.take(1, PATIENCE) == Remaining(1, began), "the pause is everybody's"
    await told(other, other.too_fast)  # a call that was under way: together with the first, it counts once
    await asyncio.sleep(1.1)
    began = time.monotonic()
    assert await other.take(50, PATIENCE) == 0
    assert await one.take(50, PATIENCE) == Remaining(0, began)
    assert await one.take(1, PATIENCE) == Remaining(1, began), "50 a second now, so a hundred are two seconds"
    for _ in range(50):
        await told(other, other.went_well)
    await asyncio.sleep(2.1)
    began = time.monotonic()
    assert await one.take(200, PATIENCE) == 0
    assert await other.take(1, PATIENCE) == Remaining(1, began), "100 a second again"


async def test_pauses_double_and_beyond_patience_nothing_is_taken(fleet: tuple[FleetPace, FleetPace]) -> None:
    one, other = fleet
    for pause in (1, 2, 4):
        began = time.monotonic()
        await told(one, one.too_fast)
        wait = await other.take(1, 0.0)
        assert wait == Remaining(pause, began)
        await asyncio.sleep(wait + 0.05)
    assert await one.take(1, PATIENCE) == 0, "what was not taken counts for nobody"


async def test_what_succeeds_within_a_pause_was_under_way_and_makes_nothing_faster(
    fleet: tuple[FleetPace, FleetPace],
) -> None:
    """Each such call once set the next pause back to a second."""
    one, other = fleet
    for pause in (1, 2, 4):
        began = time.monotonic()
        await told(one, one.too_fast)
        assert await other.take(1, 0.0) == Remaining(pause, began)
        await told(other, lambda: [other.went_well() for _ in range(20)])  # at once: all are to be within the pause
        await asyncio.sleep(pause + 0.1)
    began = time.monotonic()
    assert await one.take(25, PATIENCE) == 0
    assert await one.take(1, 0.0) == Remaining(1, began), "halved three times: 12.5 a second"
    await told(other, other.went_well)
    began = time.monotonic()
    await told(one, one.too_fast)
    assert await other.take(1, 0.0) == Remaining(1, began), "a success after the pause makes the next one short"


async def test_a_route_that_may_less_slows_no_other_of_its_account(valkey: ValkeyServer) -> None:
    """Its maximum was once kept as the rate of all, and what it took was taken at that rate."""
    paces = paces_at(valkey)
    fast, slow = pace_of(paces), pace_of(paces, 1.0)
    began = time.monotonic()
    assert await slow.take(1, PATIENCE) == 0
    assert await slow.take(3, PATIENCE) == Remaining(0, began)
    assert await slow.take(1, PATIENCE) == Remaining(3, began), "it goes at one a second itself"
    began = time.monotonic()
    assert await fast.take(100, PATIENCE) == 0
    assert await fast.take(1, PATIENCE) == Remaining(0, began)
    began = time.monotonic()
    await told(slow, slow.too_fast)
    assert await fast.take(1, PATIENCE) == Remaining(1, began), "the account's pause is everybody's"
    await asyncio.sleep(1.1)
    began = time.monotonic()
    assert await fast.take(150, PATIENCE) == 0
    assert await fast.take(1, 0.0) == Remaining(2, began), "half as fast, and not as slow as the other"
    assert answered_all(fast, slow)
    await paces.close()


async def test_all_routes_of_an_account_go_no_faster_than_its_fastest(valkey: ValkeyServer) -> None:
    paces = paces_at(valkey)
    fast, slow = pace_of(paces), pace_of(paces, 50.0)
    began = time.monotonic()
    assert await fast.take(200, PATIENCE) == 0
    assert await slow.take(100, PATIENCE) == Remaining(1, began)
    assert await fast.take(1, PATIENCE) == Remaining(2, began), "what the slower one took counts"
    assert answered_all(fast, slow)
    await paces.close()


async def test_without_redis_each_worker_has_its_own_pace(
    two: tuple[FleetPace, FleetPace], valkey: ValkeyServer
) -> None:
    one, other = two
    valkey.kill()
    paces = Paces(Settings.load({"redis_url": valkey.url}, {}))
    with pytest.raises(StreamUnavailable):
        await paces.take("ses eu", Rates(100.0, 0.2), 1, PATIENCE)
    await paces.close()
    began = time.monotonic()
    await told(one, one.too_fast)
    assert await one.take(1, PATIENCE) == Remaining(1, began)
    assert await other.take(1, PATIENCE) == 0
    assert (one.own.rate, other.own.rate) == (50.0, 100.0)
