"""For how long mail is sent back that a destination can not take now: over a loop whose time passes in name only."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import replace

import pytest
from virtual_time import LoopClock, VirtualTimeLoop

from smtp_proxy.delivery.breaker import COOL_DOWN_SECONDS, FAILURES
from smtp_proxy.delivery.governor import PATIENCE_SECONDS, Blocked, Busy, Governor, Permit
from smtp_proxy.delivery.route import Route
from smtp_proxy.delivery.transaction import Transcript
from smtp_proxy.delivery.turn import FREE_TURN
from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult

TO = Route("mx.example", 25, "none", "proxy.example", connections=16)
EACH_SECONDS = 0.05  # of a transaction that goes well, as long as nothing else is known


def transcript(outcome: Outcome, code: int, kind: Kind, *, hung_up: bool) -> Transcript:
    result = RecipientResult(0, outcome, code, "", "as told", "mx.example:25", kind)
    return Transcript({0: result}, hung_up=hung_up)


WELL = transcript(Outcome.DELIVERED, 250, Kind.ACCEPTED, hung_up=False)
GONE = transcript(Outcome.DEFERRED, 0, Kind.NETWORK, hung_up=True)
PUT_OFF = transcript(Outcome.DEFERRED, 451, Kind.UNKNOWN, hung_up=False)
AWAY = transcript(Outcome.DEFERRED, 421, Kind.UNKNOWN, hung_up=True)


def governor() -> Governor:
    return Governor(LoopClock(), lambda: 0.5)


async def fail(ruler: Governor, to: Route = TO, *, times: int = FAILURES, seconds: float = 0.0) -> None:
    """Open the breaker, by failures side by side that take so long."""
    permits = [await ruler.enter(to, "a", FREE_TURN) for _ in range(times)]
    await asyncio.sleep(seconds)
    for permit in permits:
        ruler.leave(permit, GONE)


async def probe(ruler: Governor, to: Route = TO) -> Permit:
    """The one that is let through when the cool-down is over."""
    while True:
        try:
            return await ruler.enter(to, "a", FREE_TURN)
        except Blocked:
            await asyncio.sleep(0.5)


async def turned_away(ruler: Governor, count: int, to: Route = TO) -> list[float]:
    """So many come, and go away for so many seconds each."""
    seconds = []
    for _ in range(count):
        with pytest.raises(Busy) as busy:
            await ruler.enter(to, "a", FREE_TURN)
        ruler.sent_back(to, busy.value.seconds)
        seconds.append(busy.value.seconds)
    return seconds


async def deliver(ruler: Governor, to: Route, seconds: float, away: list[float] | None = None) -> int:
    """As a worker does: come back when told to. How often it was sent away; `away`: for how long each time."""
    away = [] if away is None else away
    for times in range(1000):
        try:
            permit = await ruler.enter(to, "a", FREE_TURN)
        except Busy as busy:
            away.append(busy.seconds)
            ruler.sent_back(to, busy.seconds)
            await asyncio.sleep(busy.seconds)
        else:
            await asyncio.sleep(seconds)
            ruler.leave(permit, WELL)
            return times
    raise AssertionError("sent away for ever")


def of_5000(seconds: list[float]) -> bool:
    """As long as 16 at once need for them, neither more nor less."""
    fair = 5000 * EACH_SECONDS / 16
    return 0.8 * fair < max(seconds) < 1.2 * fair and min(seconds) < 8


async def test_while_a_slow_probe_is_under_way_it_is_by_what_may_go_at_once() -> None:
    """It was by the probe, alone and slow, so that 2,000 trickled in for a minute after a restart of seconds."""
    ruler = governor()
    await fail(ruler)
    await probe(ruler)
    await asyncio.sleep(3)
    assert of_5000(await turned_away(ruler, 5000))


async def test_a_slow_probe_that_failed_before_is_no_measure() -> None:
    ruler = governor()
    await fail(ruler)
    first = await probe(ruler)
    await asyncio.sleep(30)
    ruler.leave(first, GONE)
    await probe(ruler)
    assert of_5000(await turned_away(ruler, 5000))


async def test_time_outs_that_opened_the_circuit_are_no_measure() -> None:
    ruler = governor()
    await fail(ruler, times=16, seconds=30)
    permit = await probe(ruler)
    assert of_5000(await turned_away(ruler, 5000))
    ruler.leave(permit, WELL)
    await asyncio.sleep(30)
    assert ruler._destination(TO, asyncio.get_running_loop().time()).line._each.seconds == EACH_SECONDS


async def test_places_that_nobody_used_are_no_measure() -> None:
    """A line that emptied as the circuit opened once left the pace at zero: everybody came again every 5 s."""
    ruler, to = governor(), replace(TO, connections=50)
    for _ in range(40):
        permits = [await ruler.enter(to, "a", FREE_TURN) for _ in range(50)]
        await asyncio.sleep(1)
        for permit in permits:
            ruler.leave(permit, WELL)
    permits = [await ruler.enter(to, "a", FREE_TURN) for _ in range(50)]
    waiting = [asyncio.create_task(ruler.enter(to, "a", FREE_TURN)) for _ in range(200)]
    await asyncio.sleep(0.5)
    for permit in permits:
        ruler.leave(permit, GONE)
    went = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, Blocked) for each in went)
    await probe(ruler, to)
    seconds = await turned_away(ruler, 5000, to)
    assert 80 < max(seconds) < 125, "5000 at 50/s"


async def test_what_the_limits_keep_back_is_no_measure() -> None:
    ruler, to = governor(), replace(TO, tenant_connections=1)
    permit = await ruler.enter(to, "a", FREE_TURN)
    await turned_away(ruler, 15, to)
    ruler.leave(permit, None)
    assert ruler._destination(to, 0.0).line._each.seconds == EACH_SECONDS


async def test_nobody_is_sent_away_by_a_probe_that_was_slow_and_went_well() -> None:
    ruler = governor()
    await fail(ruler)
    permit = await probe(ruler)
    await asyncio.sleep(29)
    await turned_away(ruler, 1000)
    await asyncio.sleep(1)
    ruler.leave(permit, WELL)
    assert await asyncio.gather(*(deliver(ruler, TO, EACH_SECONDS) for _ in range(300))) == [0] * 300


@pytest.mark.parametrize("probe_seconds", [0.1, 3, 10, 30])
async def test_all_is_through_soon_after_the_next_hop_is_back(probe_seconds: float) -> None:
    """And nobody has asked much more often than it takes to double 5 s up to the probe's length."""
    ruler = Governor(LoopClock(), random.Random(1).random)
    await fail(ruler)
    await asyncio.sleep(COOL_DOWN_SECONDS)
    permit = await probe(ruler)
    tasks = [asyncio.create_task(deliver(ruler, TO, EACH_SECONDS)) for _ in range(1000)]
    await asyncio.sleep(probe_seconds)
    ruler.leave(permit, WELL)
    back = asyncio.get_running_loop().time()
    times = await asyncio.gather(*tasks)
    assert asyncio.get_running_loop().time() - back < 7 + 1.3 * probe_seconds
    assert max(times) <= 5


@pytest.mark.parametrize("went", [GONE, WELL])
async def test_a_probe_of_which_nothing_comes_gives_way_to_another_after_a_minute(went: Transcript) -> None:
    """How the first one ends makes no difference any more, once the second has gone well."""
    ruler = Governor(LoopClock(), random.Random(1).random)
    await fail(ruler)
    first = await probe(ruler)
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(deliver(ruler, TO, EACH_SECONDS) for _ in range(1000)))
    lasted = asyncio.get_running_loop().time() - began
    assert 60 < lasted < 60 + 1.5 * 60, "who comes just before that is away for as long again, more or less"
    ruler.leave(first, went)
    assert await deliver(ruler, TO, EACH_SECONDS) == 0


async def test_what_began_before_the_circuit_opened_does_not_fail_for_the_probe() -> None:
    """A read that timed out meanwhile put all mail off by the schedule of retries, though the probe was under way."""
    ruler = governor()
    old = await ruler.enter(TO, "a", FREE_TURN)
    await fail(ruler)
    permit = await probe(ruler)
    ruler.leave(old, GONE)
    with pytest.raises(Busy, match="being probed"):
        await ruler.enter(TO, "a", FREE_TURN)
    ruler.leave(permit, WELL)
    assert await deliver(ruler, TO, EACH_SECONDS) == 0


@pytest.mark.parametrize("gave_way", [False, True])
async def test_a_probe_of_a_circuit_that_closed_since_does_not_fail_for_that_of_the_next(gave_way: bool) -> None:
    """Each circuit counts its probes from one."""
    ruler = governor()
    old = await ruler.enter(TO, "a", FREE_TURN)
    await fail(ruler)
    first = await probe(ruler)
    if gave_way:
        await asyncio.sleep(61)
        ruler.leave(await probe(ruler), WELL)
    else:
        ruler.leave(old, WELL)
    await fail(ruler)
    permit = await probe(ruler)
    ruler.leave(first, GONE)
    with pytest.raises(Busy, match="being probed"):
        await ruler.enter(TO, "a", FREE_TURN)
    ruler.leave(permit, WELL)
    assert await deliver(ruler, TO, EACH_SECONDS) == 0


async def test_every_probe_that_fails_keeps_the_circuit_open() -> None:
    ruler = governor()
    await fail(ruler)
    for seconds in (10, 20, 40):
        ruler.leave(await probe(ruler), GONE)
        with pytest.raises(Blocked, match=f"probed again in {seconds} s"):
            await ruler.enter(TO, "a", FREE_TURN)


@pytest.mark.parametrize("limit", [0, 1])
@pytest.mark.parametrize(("hangs", "least"), [(30, 2500), (61, 2500), (300, 1000), (600, 250)])
async def test_a_next_hop_that_hangs_is_probed_less_and_less_and_not_only_busy(
    hangs: int, least: int, limit: int
) -> None:
    """Longer than a minute, so that each probe gives way to another before it fails, or can not go for the limit."""
    ruler, clock, to = governor(), asyncio.get_running_loop().time, replace(TO, tenant_connections=limit)
    await fail(ruler)
    began, probes, blocked = clock(), [], 0

    async def hang(permit: Permit) -> None:
        await asyncio.sleep(hangs)
        ruler.leave(permit, GONE)

    tasks = []
    while clock() - began < 3600:
        try:
            tasks.append(asyncio.create_task(hang(await ruler.enter(to, "a", FREE_TURN))))
            probes.append(clock())
        except Blocked:
            blocked += 1
        except Busy as busy:
            ruler.sent_back(to, busy.seconds)
        await asyncio.sleep(1)
    assert blocked > least
    assert len(probes) < 35
    assert max(late - early for early, late in itertools.pairwise(probes)) > 200
    await asyncio.gather(*tasks)


async def test_a_probe_that_gave_way_and_was_broken_off_makes_no_room_for_a_third() -> None:
    ruler = governor()
    await fail(ruler)
    first = await probe(ruler)
    await asyncio.sleep(61)
    permit = await probe(ruler)
    ruler.leave(first, None)
    with pytest.raises(Busy, match="being probed"):
        await ruler.enter(TO, "a", FREE_TURN)
    ruler.leave(permit, None)
    ruler.leave(await probe(ruler), WELL)
    assert await deliver(ruler, TO, EACH_SECONDS) == 0


@pytest.mark.parametrize("after", [0.1, 3.0])
@pytest.mark.parametrize("stood", [0.5, 1.0, 30.0])
async def test_a_moment_in_which_the_machine_stands_still_is_no_pace(stood: float, after: float) -> None:
    """All that were under way then looked slow; mail that came in the seconds after was away for two minutes."""
    loop, ruler = asyncio.get_running_loop(), Governor(LoopClock(), random.Random(1).random)
    assert isinstance(loop, VirtualTimeLoop)
    to = replace(TO, connections=48)
    away: list[float] = []
    tasks = [asyncio.create_task(deliver(ruler, to, 0.12, away)) for _ in range(5000)]
    for n in range(20 * 380):
        if n == after * 380:
            loop._pass(stood)
        tasks.append(asyncio.create_task(deliver(ruler, to, 0.12, away)))
        await asyncio.sleep(1 / 380)
    await asyncio.gather(*tasks)
    assert away
    assert max(away) < 20


@pytest.mark.parametrize("stood", [0.05, 0.09, 0.11, 0.3])
@pytest.mark.parametrize(("waiting", "at_once"), [(100, 3), (450, 6)])
async def test_a_moment_that_passes_while_mail_joins_the_line_turns_none_away(
    waiting: int, at_once: int, stood: float
) -> None:
    """300 ms between two that joined were counted as 300 ms for each before them: 10 s for a line of 100."""
    loop, ruler = asyncio.get_running_loop(), governor()
    assert isinstance(loop, VirtualTimeLoop)
    to = replace(TO, connections=at_once)

    async def deliver_nth(n: int) -> int:
        if n == waiting // 2:
            loop._pass(stood)
        return await deliver(ruler, to, 0.01)

    assert await asyncio.gather(*(deliver_nth(n) for n in range(waiting))) == [0] * waiting


async def test_who_waited_while_it_stood_is_not_overdue() -> None:
    loop, ruler = asyncio.get_running_loop(), governor()
    assert isinstance(loop, VirtualTimeLoop)
    to = replace(TO, connections=1)
    waiting = [asyncio.create_task(deliver(ruler, to, 0.1)) for _ in range(40)]
    await asyncio.sleep(0.5)
    loop._pass(PATIENCE_SECONDS + 3)
    assert await asyncio.gather(*waiting) == [0] * 40
    await asyncio.sleep(2)
    assert not loop._scheduled, "with nothing under way no timer runs"  # type: ignore[attr-defined]


async def test_after_it_stood_the_pace_is_learned_as_before() -> None:
    loop, ruler = asyncio.get_running_loop(), governor()
    assert isinstance(loop, VirtualTimeLoop)
    permit = await ruler.enter(TO, "a", FREE_TURN)
    loop._pass(30)
    ruler.leave(permit, WELL)
    for _ in range(200):
        await deliver(ruler, TO, EACH_SECONDS)
    line = ruler._destination(TO, loop.time()).line
    assert line.pace_seconds(1) == pytest.approx(EACH_SECONDS, rel=0.05)


async def test_patience_is_as_long_as_ever_after_it_stood_and_a_destination_that_stands_is_noticed() -> None:
    loop, ruler = asyncio.get_running_loop(), governor()
    assert isinstance(loop, VirtualTimeLoop)
    to = replace(TO, connections=1)
    permit = await ruler.enter(to, "a", FREE_TURN)
    loop._pass(30)
    await asyncio.sleep(0.1)
    ruler.leave(permit, WELL)
    await ruler.enter(to, "a", FREE_TURN)  # and hangs
    began = loop.time()
    with pytest.raises(Busy):
        await ruler.enter(to, "b", FREE_TURN)
    assert PATIENCE_SECONDS <= loop.time() - began <= PATIENCE_SECONDS * 1.25
    await asyncio.sleep(1)
    began = loop.time()
    with pytest.raises(Busy):
        await ruler.enter(to, "b", FREE_TURN)
    assert loop.time() == began


@pytest.mark.parametrize("tenants", [1, 10, 400])
async def test_overload_is_spread_over_the_time_that_it_needs_however_many_tenants_it_is_of(tenants: int) -> None:
    """With one tenant in a full line the pace was once thought a hundred times what it is."""
    ruler = governor()
    for _ in range(16):
        await ruler.enter(TO, "a", FREE_TURN)
    waiting = [asyncio.create_task(ruler.enter(TO, f"t{n % tenants}", FREE_TURN)) for n in range(500)]
    await asyncio.sleep(0)
    assert of_5000(await turned_away(ruler, 5000))
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_those_that_are_back_do_not_count_behind_one_that_is_long_away() -> None:
    ruler = governor()
    now = asyncio.get_running_loop().time
    await ruler.enter(TO, "a", FREE_TURN)
    destination = ruler._destination(TO, now())
    ruler.sent_back(TO, 100)
    for _ in range(1000):
        ruler.sent_back(TO, 5)
    assert destination.away(now()) == 1001
    await asyncio.sleep(6)
    assert destination.away(now()) == 1


async def test_a_destination_that_stands_is_asked_again_when_it_has_stood_twice_as_long() -> None:
    """Not multiplied by those that wait: a stall of seconds once had mail away for two minutes."""
    ruler = governor()
    permits = [await ruler.enter(TO, "a", FREE_TURN) for _ in range(16)]
    began = asyncio.get_running_loop().time()

    async def back_seconds() -> float:
        with pytest.raises(Busy) as busy:
            await ruler.enter(TO, "a", FREE_TURN)
        ruler.sent_back(TO, busy.value.seconds)
        return busy.value.seconds

    for stood in (10, 20, 40):
        await asyncio.sleep(began + stood - asyncio.get_running_loop().time())
        seconds = await asyncio.gather(*(back_seconds() for _ in range(1000)))
        assert stood <= min(seconds)
        assert max(seconds) <= stood + 1.5 * PATIENCE_SECONDS
    for permit in permits:
        ruler.leave(permit, WELL)


async def test_a_pause_between_transactions_counts_for_each_that_is_away() -> None:
    ruler, to = governor(), replace(TO, connections=1)
    ruler.leave(await ruler.enter(to, "a", FREE_TURN), AWAY)
    await asyncio.sleep(1)
    ruler.leave(await ruler.enter(to, "a", FREE_TURN), AWAY)
    await asyncio.sleep(1)
    ruler.leave(await ruler.enter(to, "a", FREE_TURN), AWAY)
    pause = ruler._destination(to, 0.0).pace.pause_seconds
    assert pause == 1.0
    waiting = [asyncio.create_task(ruler.enter(to, "a", FREE_TURN)) for _ in range(5)]
    await asyncio.sleep(0)
    seconds = await turned_away(ruler, 100, to)
    assert 20 < max(seconds) < 30
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize(("a_minute", "each"), [(60, 10.0), (60, 0.05), (30, 20.0), (10, 20.0)])
async def test_what_a_limit_keeps_back_is_through_as_soon_as_the_limit_lets_it(a_minute: int, each: float) -> None:
    """The length of transactions was reckoned on top of what the limit asked for: 175 s for 70."""
    ruler, to = (
        Governor(LoopClock(), random.Random(1).random),
        replace(TO, connections=100, messages_per_minute=a_minute),
    )
    for _ in range(100):
        permit = await ruler.enter(replace(to, messages_per_minute=0), "a", FREE_TURN)
        await asyncio.sleep(each)
        ruler.leave(permit, WELL)
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(deliver(ruler, to, each) for _ in range(2 * a_minute)))
    assert asyncio.get_running_loop().time() - began < 60 + each + 8


@pytest.mark.parametrize("lasts", [20, 60])
async def test_one_long_transaction_does_not_make_a_quick_destination_stand(lasts: int) -> None:
    ruler = governor()
    await ruler.enter(TO, "a", FREE_TURN)
    await asyncio.sleep(lasts)
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(deliver(ruler, TO, EACH_SECONDS) for _ in range(1000)))
    assert asyncio.get_running_loop().time() - began < 8


@pytest.mark.parametrize("went", [GONE, PUT_OFF, AWAY])
async def test_what_does_not_go_well_says_not_how_long_it_takes_when_it_does(went: Transcript) -> None:
    ruler = governor()
    permits = [await ruler.enter(TO, "a", FREE_TURN) for _ in range(4)]
    await asyncio.sleep(30)
    for permit in permits:
        ruler.leave(permit, went)
    assert ruler._destination(TO, asyncio.get_running_loop().time()).line.pace_seconds(1) == EACH_SECONDS


async def test_nobody_is_sent_away_for_more_than_two_minutes() -> None:
    ruler = governor()
    await fail(ruler)
    await probe(ruler)
    assert max(await turned_away(ruler, 50_000)) == 120


async def test_by_as_many_at_once_as_it_had_asked_for() -> None:
    """16 at first, of which a few 421 left one."""
    ruler = governor()
    for _ in range(4):
        ruler.leave(await ruler.enter(TO, "a", FREE_TURN), AWAY)
        await asyncio.sleep(1)
    assert ruler._destination(TO, 0.0).pace.concurrency == 1
    await fail(ruler, times=1)
    await probe(ruler)
    seconds = await turned_away(ruler, 1000)
    assert 40 < max(seconds) < 60
