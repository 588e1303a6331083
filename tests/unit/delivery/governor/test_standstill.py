"""How long this process stood: over a loop whose time passes in name only, and that is late when it is told to be."""

from __future__ import annotations

import asyncio

import pytest
from virtual_time import LoopClock, VirtualTimeLoop

from smtp_proxy.delivery.standstill import _CREDIT_SECONDS, _NOTICED_SECONDS, _SHARE, _TICK_SECONDS, Standstill

# How much of it is counted depends on how long ago the last tick was.
ROUGHLY = _TICK_SECONDS + 1e-6


class Watched:
    """A standstill, and the loop that is to be late."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self.stand = loop._pass
        self.of = Standstill(LoopClock())

    @property
    def stood(self) -> float:
        now = asyncio.get_running_loop().time()
        return now - self.of.awake_seconds(now)


async def test_what_it_stood_is_no_time_that_it_was_awake() -> None:
    it = Watched()
    it.of.begin()
    await asyncio.sleep(10)
    assert it.stood == 0
    it.stand(1.5)
    await asyncio.sleep(10)
    assert it.stood == pytest.approx(1.5, abs=ROUGHLY)
    it.stand(0.7)
    await asyncio.sleep(10)
    assert it.stood == pytest.approx(2.2, abs=2 * ROUGHLY)


async def test_who_asks_before_the_timer_fires_is_told_of_it_and_it_counts_once() -> None:
    it = Watched()
    it.of.begin()
    it.stand(1)
    asked = it.stood
    assert asked == pytest.approx(1, abs=ROUGHLY)
    assert it.stood == asked
    await asyncio.sleep(1)
    assert it.stood == asked


async def test_one_long_piece_of_work_in_which_it_is_asked_again_and_again() -> None:
    it = Watched()
    it.of.begin()
    for _ in range(10):
        it.stand(0.1)
        assert it.stood >= 0
    assert it.stood == pytest.approx(1, abs=ROUGHLY + _NOTICED_SECONDS)


async def test_to_be_a_little_late_tells_nothing() -> None:
    it = Watched()
    it.of.begin()
    for _ in range(100):
        it.stand(_NOTICED_SECONDS)
        await asyncio.sleep(_TICK_SECONDS)
    assert it.stood == 0


async def test_while_nothing_is_under_way_nothing_is_late_and_no_timer_runs() -> None:
    it = Watched()
    it.stand(5)
    assert it.stood == 0
    for _ in range(2):
        it.of.begin()
        it.of.begin()
        await asyncio.sleep(1)
        it.of.end()
        assert _timers() == 1
        it.of.end()
        await asyncio.sleep(1)
        assert _timers() == 0
        it.stand(5)
        assert it.stood == 0


async def test_one_timer_for_all_that_is_under_way() -> None:
    it = Watched()
    for _ in range(1000):
        it.of.begin()
        await asyncio.sleep(0.01)
        assert _timers() == 1
        it.of.end()
    await asyncio.sleep(1)
    assert _timers() == 0


@pytest.mark.parametrize("late", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("before", [0, 600])
async def test_a_loop_that_is_always_late_has_too_much_to_do(late: float, before: float) -> None:
    """However long it was on time before."""
    it = Watched()
    it.of.begin()
    await asyncio.sleep(before)
    began = asyncio.get_running_loop().time()
    for _ in range(500):
        it.stand(late)
        await asyncio.sleep(0.02)
    passed = asyncio.get_running_loop().time() - began
    assert 0.9 * _SHARE * passed <= it.stood <= (_SHARE + 0.05) * passed + 2 * _CREDIT_SECONDS


async def test_what_is_longer_than_any_work_of_ours_counts_each_time() -> None:
    it = Watched()
    it.of.begin()
    for _ in range(5):
        it.stand(10)
        await asyncio.sleep(0.1)
    assert it.stood == pytest.approx(50, abs=5 * ROUGHLY)


async def test_a_long_one_counts_whole_and_not_for_ever_after() -> None:
    it = Watched()
    it.of.begin()
    it.stand(600)
    await asyncio.sleep(1)
    assert it.stood == pytest.approx(600, abs=ROUGHLY)
    await asyncio.sleep(_CREDIT_SECONDS / _SHARE + 1)
    it.stand(1)
    await asyncio.sleep(1)
    assert it.stood == pytest.approx(601, abs=2 * ROUGHLY)


async def test_it_never_goes_back() -> None:
    it, last = Watched(), 0.0
    it.of.begin()
    for n in range(200):
        it.stand(n % 7 * 0.03)
        now = asyncio.get_running_loop().time()
        awake = it.of.awake_seconds(now)
        assert awake >= last
        last = awake
        await asyncio.sleep(n % 5 * 0.02)


def _timers() -> int:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return len(loop._scheduled)  # type: ignore[attr-defined]
