"""Who may begin with which next hop, and when: over a loop whose time passes in name only."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from virtual_time import LoopClock

from smtp_proxy.delivery.breaker import COOL_DOWN_SECONDS, FAILURES
from smtp_proxy.delivery.governor import (
    _FORGOTTEN_SECONDS,
    PATIENCE_SECONDS,
    Blocked,
    Busy,
    Governor,
    Permit,
    _Destination,
)
from smtp_proxy.delivery.recent import LOOKED_AT
from smtp_proxy.delivery.route import Route
from smtp_proxy.delivery.transaction import Transcript
from smtp_proxy.delivery.turn import FREE_TURN, SharedTurn
from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult
from smtp_proxy.telemetry.metrics import DESTINATIONS_SLOWED


def route(host: str = "mx.example", connections: int = 2) -> Route:
    return Route(host, 25, "none", "proxy.example", connections=connections)


def result(outcome: Outcome, code: int, kind: Kind = Kind.UNKNOWN) -> RecipientResult:
    return RecipientResult(0, outcome, code, "", "as told", "mx.example:25", kind)


WELL = Transcript({0: result(Outcome.DELIVERED, 250, Kind.ACCEPTED)})
GONE = Transcript({0: result(Outcome.DEFERRED, 0, Kind.NETWORK)}, hung_up=True)
PUT_OFF_ALL = Transcript({0: result(Outcome.DEFERRED, 451)})
AWAY = Transcript({0: result(Outcome.DEFERRED, 421)}, hung_up=True)


def governor() -> Governor:
    return Governor(LoopClock(), lambda: 0.5)


async def test_no_more_at_once_than_the_route_says_and_then_in_turn() -> None:
    ruler, to = governor(), route()
    first, second = [await ruler.enter(to, "a", FREE_TURN) for _ in range(2)]
    third = asyncio.create_task(ruler.enter(to, "a", FREE_TURN))
    await asyncio.sleep(0.1)
    assert not third.done()
    ruler.leave(first, WELL)
    assert isinstance(await third, Permit)
    ruler.leave(second, WELL)


async def test_one_destination_is_no_matter_to_another() -> None:
    ruler = governor()
    for _ in range(2):
        await ruler.enter(route("slow.example"), "a", FREE_TURN)
    async with asyncio.timeout(0.01):
        await ruler.enter(route("fast.example"), "a", FREE_TURN)


async def test_a_line_that_stands_sends_back_after_its_patience_and_then_at_once() -> None:
    ruler, to = governor(), route()
    for _ in range(2):
        await ruler.enter(to, "a", FREE_TURN)
    began = asyncio.get_running_loop().time()
    with pytest.raises(Busy) as busy:
        await ruler.enter(to, "a", FREE_TURN)
    waited = asyncio.get_running_loop().time() - began
    assert PATIENCE_SECONDS <= waited <= PATIENCE_SECONDS * 1.5
    assert busy.value.seconds >= 5
    await asyncio.sleep(30)
    began = asyncio.get_running_loop().time()
    with pytest.raises(Busy):
        await ruler.enter(to, "a", FREE_TURN)
    assert asyncio.get_running_loop().time() == began


async def test_tenants_take_turns_in_a_line() -> None:
    ruler, to = governor(), route(connections=1)
    permit = await ruler.enter(to, "loud", FREE_TURN)
    order: list[str] = []

    async def go(tenant: str) -> None:
        mine = await ruler.enter(to, tenant, FREE_TURN)
        order.append(tenant)
        await asyncio.sleep(0.01)
        ruler.leave(mine, WELL)

    tasks = [asyncio.create_task(go("loud")) for _ in range(20)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(go("quiet")))
    await asyncio.sleep(0)
    ruler.leave(permit, WELL)
    await asyncio.gather(*tasks)
    assert order.index("quiet") <= 2


async def test_who_is_broken_off_in_the_line_or_with_its_place_leaves_nothing_behind() -> None:
    ruler, to = governor(), route(connections=1)
    permit = await ruler.enter(to, "a", FREE_TURN)
    waiting = asyncio.create_task(ruler.enter(to, "a", FREE_TURN))
    given = asyncio.create_task(ruler.enter(to, "a", FREE_TURN))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    ruler.leave(permit, None)
    given.cancel()  # its place was given in this very moment
    await asyncio.gather(waiting, given, return_exceptions=True)
    async with asyncio.timeout(0.01):
        await ruler.enter(to, "a", FREE_TURN)


async def test_a_dead_next_hop_is_blocked_and_probed_by_one() -> None:
    ruler, to = governor(), route(connections=8)
    for _ in range(FAILURES):
        ruler.leave(await ruler.enter(to, "a", FREE_TURN), GONE)
    with pytest.raises(
        Blocked, match=r"mx\.example:25 not tried: 5 failures in a row, at last: as told; probed again in 5 s"
    ):
        await ruler.enter(to, "a", FREE_TURN)
    await ruler.enter(route("other.example"), "a", FREE_TURN)
    await asyncio.sleep(COOL_DOWN_SECONDS)
    probe = await ruler.enter(to, "a", FREE_TURN)
    # By the schedule of retries it might leave a minute or hours after the probe has shown that it could.
    with pytest.raises(Busy, match=r"mx\.example:25 is being probed") as busy:
        await ruler.enter(to, "a", FREE_TURN)
    assert 3 < busy.value.seconds < 8
    ruler.leave(probe, WELL)
    await ruler.enter(to, "a", FREE_TURN)


async def test_those_in_line_are_blocked_too_when_the_breaker_opens() -> None:
    ruler, to = governor(), route(connections=FAILURES)
    permits = [await ruler.enter(to, "a", FREE_TURN) for _ in range(FAILURES)]
    waiting = [asyncio.create_task(ruler.enter(to, "a", FREE_TURN)) for _ in range(20)]
    await asyncio.sleep(0)
    for permit in permits:
        ruler.leave(permit, GONE)
    went = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(one, Blocked) for one in went) >= 20 - FAILURES
    assert not any(isinstance(one, Busy) for one in went)


async def test_421_halves_what_goes_at_once() -> None:
    ruler, to = governor(), route(connections=4)
    await asyncio.sleep(1)
    ruler.leave(await ruler.enter(to, "a", FREE_TURN), AWAY)
    await asyncio.sleep(1)
    for _ in range(2):
        await ruler.enter(to, "a", FREE_TURN)
    with pytest.raises(Busy):
        await ruler.enter(to, "a", FREE_TURN)


class CountedTurn:
    def __init__(self) -> None:
        self.lent = 0
        self.regained = 0

    def lend(self, seconds: float) -> bool:
        self.lent += 1
        return True

    async def regain(self) -> None:
        self.regained += 1


async def test_a_turn_is_lent_while_waiting_and_regained_with_the_place_or_without() -> None:
    ruler, to, turn = governor(), route(connections=1), CountedTurn()
    permit = await ruler.enter(to, "a", turn)
    assert (turn.lent, turn.regained) == (0, 0)
    waiting = asyncio.create_task(ruler.enter(to, "a", turn))
    await asyncio.sleep(0)
    assert (turn.lent, turn.regained) == (1, 0)
    ruler.leave(permit, WELL)
    await waiting
    assert (turn.lent, turn.regained) == (1, 1)
    with pytest.raises(Busy):
        await ruler.enter(to, "a", turn)
    assert (turn.lent, turn.regained) == (2, 2)


async def test_legs_share_a_turn_that_is_lent_when_all_that_are_left_wait() -> None:
    turn = CountedTurn()
    shared = SharedTurn(turn, 3)
    shared.ended()
    assert shared.lend(1.0)
    assert turn.lent == 0
    assert shared.lend(1.0)
    assert turn.lent == 1
    await shared.regain()
    await shared.regain()
    assert turn.regained == 1


async def test_what_is_remembered_of_dead_next_hops_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtp_proxy.delivery.governor._KEPT", 50)
    ruler = governor()
    for n in range(500):
        ruler.leave(await ruler.enter(route(f"mx{n}.example"), "a", FREE_TURN), GONE)
    assert len(ruler._breakers) <= 50
    assert len(ruler._destinations) <= 50


async def test_a_new_destination_costs_the_same_however_many_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new one once looked through all of them, as long as none of them was at rest."""
    monkeypatch.setattr("smtp_proxy.delivery.governor._KEPT", 50)
    looks = 0

    def is_at_rest(destination: _Destination, now: float) -> bool:
        nonlocal looks
        looks += 1
        return at_rest(destination, now)

    at_rest = _Destination.is_at_rest
    monkeypatch.setattr(_Destination, "is_at_rest", is_at_rest)
    ruler = governor()
    busy = [await ruler.enter(route(f"mx{n}.example"), "a", FREE_TURN) for n in range(300)]
    assert len(ruler._destinations) == 300, "none is forgotten that is used"
    assert looks <= 250 * LOOKED_AT
    for permit in busy:
        ruler.leave(permit, WELL)
    for n in range(300):
        ruler.leave(await ruler.enter(route(f"more{n}.example"), "a", FREE_TURN), WELL)
    assert len(ruler._destinations) <= 50


async def test_who_asked_for_less_long_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtp_proxy.delivery.governor._KEPT", 5)
    ruler, before = governor(), DESTINATIONS_SLOWED._value.get()
    for n in range(5):
        ruler.leave(await ruler.enter(route(f"mx{n}.example"), "a", FREE_TURN), PUT_OFF_ALL)
    ruler.leave(await ruler.enter(route("new.example"), "a", FREE_TURN), WELL)
    assert len(ruler._destinations) == 6, "what they asked for still counts"
    assert DESTINATIONS_SLOWED._value.get() == before + 5
    await asyncio.sleep(_FORGOTTEN_SECONDS + 1)
    ruler.leave(await ruler.enter(route("newer.example"), "a", FREE_TURN), WELL)
    assert len(ruler._destinations) <= 5
    assert DESTINATIONS_SLOWED._value.get() < before + 5


async def test_who_demands_more_of_a_host_closes_it_to_nobody_else() -> None:
    """One domain's policy names another's MX, whose certificate does not satisfy it."""
    ruler, easy = governor(), route(connections=8)
    strict = replace(easy, tls="starttls")
    for _ in range(FAILURES):
        ruler.leave(await ruler.enter(strict, "a", FREE_TURN), GONE)
    with pytest.raises(Blocked):
        await ruler.enter(strict, "a", FREE_TURN)
    assert isinstance(await ruler.enter(easy, "a", FREE_TURN), Permit)
