"""Places and minutes of a destination over the fleet, in a real Valkey: two processes' views of one Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fix_valkey import ValkeyServer

from smtp_proxy.config import Settings
from smtp_proxy.errors import StreamUnavailable
from smtp_proxy.stream.places import Limit, Places

pytestmark = pytest.mark.integration


@pytest.fixture
async def fleet(valkey: ValkeyServer) -> AsyncIterator[tuple[Places, Places]]:
    settings = Settings.load({"redis_url": valkey.url}, {})
    one, other = Places(settings), Places(settings)
    yield one, other
    await one.close()
    await other.close()


async def test_no_more_at_once_over_all_workers(fleet: tuple[Places, Places]) -> None:
    limit = [Limit("relay mx.example", 3, 0)]
    took = await asyncio.gather(*(fleet[n % 2].take(f"lease-{n}", limit, 30.0) for n in range(10)))
    held = [n for n, wait in enumerate(took) if wait == 0]
    assert len(held) == 3
    await fleet[0].give_back(f"lease-{held[0]}", limit)
    assert await fleet[1].take("next", limit, 30.0) == 0
    assert await fleet[0].take("one more", limit, 30.0) > 0


async def test_places_of_a_dead_worker_run_out(fleet: tuple[Places, Places]) -> None:
    limit = [Limit("relay mx.example", 1, 0)]
    assert await fleet[0].take("dead", limit, 0.2) == 0
    assert await fleet[1].take("alive", limit, 30.0) > 0
    await asyncio.sleep(0.3)
    assert await fleet[1].take("alive", limit, 30.0) == 0


async def test_a_place_that_is_renewed_goes_on_and_one_given_back_does_not(fleet: tuple[Places, Places]) -> None:
    limit = [Limit("relay mx.example", 1, 5), Limit("relay tenant", 1, 0)]
    assert await fleet[0].take("slow", limit, 0.3) == 0
    for _ in range(4):
        await asyncio.sleep(0.15)
        await fleet[0].renew([("slow", limit)], 0.3)
        assert await fleet[1].take("next", limit, 30.0) > 0
    await fleet[0].give_back("slow", limit)
    await fleet[0].renew([("slow", limit)], 30.0)
    assert await fleet[1].take("next", limit, 30.0) == 0


async def test_no_more_in_a_minute_over_all_workers(fleet: tuple[Places, Places]) -> None:
    limit = [Limit("relay mx.example", 0, 5)]
    took = [await fleet[n % 2].take(f"lease-{n}", limit, 30.0) for n in range(8)]
    assert took[:5] == [0.0] * 5
    assert all(55 <= wait <= 61 for wait in took[5:])


async def test_what_one_limit_refuses_holds_no_place_of_another(fleet: tuple[Places, Places]) -> None:
    route, tenant = Limit("relay", 2, 0), Limit("relay tenant-a", 1, 0)
    assert await fleet[0].take("first", [route, tenant], 30.0) == 0
    assert await fleet[0].take("second", [route, tenant], 30.0) > 0
    assert await fleet[1].take("third", [route, Limit("relay tenant-b", 1, 0)], 30.0) == 0


async def test_a_minute_that_is_full_holds_no_place(fleet: tuple[Places, Places]) -> None:
    limit = [Limit("relay", 1, 1)]
    assert await fleet[0].take("first", limit, 30.0) == 0
    await fleet[0].give_back("first", limit)
    assert await fleet[0].take("second", limit, 30.0) > 50
    assert await fleet[0].take("third", [Limit("relay", 1, 0)], 30.0) == 0


async def test_without_redis_it_says_so_soon(fleet: tuple[Places, Places], valkey: ValkeyServer) -> None:
    limit = [Limit("relay", 1, 0)]
    valkey.kill()
    with pytest.raises(StreamUnavailable):
        await fleet[0].take("first", limit, 30.0)


async def test_a_tenant_over_its_own_minute_takes_nothing_from_that_of_the_others(fleet: tuple[Places, Places]) -> None:
    """Each of its tries once counted for the destination, which was then closed to all."""
    destination = Limit("relay mx.example", 0, 10)
    greedy, other = Limit("relay mx.example greedy", 0, 2), Limit("relay mx.example other", 0, 20)
    tries = [await fleet[n % 2].take(f"greedy-{n}", [destination, greedy], 30.0) for n in range(30)]
    assert [wait == 0 for wait in tries] == [True, True] + [False] * 28
    assert [await fleet[0].take(f"other-{n}", [destination, other], 30.0) for n in range(8)] == [0] * 8
    assert await fleet[0].take("other-9", [destination, other], 30.0) > 0
