"""What tenants with much mail leave to the others. Time is virtual: how long a commit takes is all that counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

import pytest
from ingress_fakes import Arriving, FakeBatch
from mail import core_envelope
from virtual_time import VirtualTimeLoop

from smtp_proxy.ingress.commit import Turns

_T = TypeVar("_T")


@pytest.mark.parametrize(("share", "rest_ms"), [(1.0, 0), (0.8, 1), (0.5, 4), (0.25, 12)])
def test_who_has_much_has_its_share_of_the_time(share: float, rest_ms: int) -> None:
    async def begins_after(source: Arriving[FakeBatch], turns: Turns) -> float:
        source.arrive(busy())
        await committed(turns, source, 0.004)
        source.arrive(busy())
        return await until_taken(turns, source)

    assert in_virtual_time(begins_after, Turns(busy_share=share)) == pytest.approx(rest_ms / 1000)


def test_nobody_rests_where_nobody_quiet_is_about() -> None:
    async def begins_after(source: Arriving[FakeBatch], turns: Turns) -> float:
        source.arrive(busy(beside_quiet=False))
        await committed(turns, source, 0.004)
        source.arrive(busy())
        return await until_taken(turns, source)

    assert in_virtual_time(begins_after, Turns(busy_share=0.1)) == 0


def test_the_disk_is_not_made_faster_by_waiting() -> None:
    async def begins_after(source: Arriving[FakeBatch], turns: Turns) -> float:
        source.arrive(busy())
        await committed(turns, source, 5.0)
        source.arrive(busy())
        return await until_taken(turns, source)

    assert in_virtual_time(begins_after, Turns(0.02, busy_share=0.5)) == pytest.approx(0.02)


def test_the_quiet_do_not_rest() -> None:
    """Nor does what they do shorten the rest of the others."""

    async def begin_after(source: Arriving[FakeBatch], turns: Turns) -> list[float]:
        source.arrive(busy())
        await committed(turns, source, 0.010)
        source.arrive(busy())
        loop, began = asyncio.get_running_loop(), []
        ended = loop.time()
        for after in (0.001, 0.006):
            loop.call_later(after, lambda: source.new[-1].set_result(FakeBatch([core_envelope()])))
        for _ in range(3):
            batch = await turns.take(source)
            began.append(loop.time() - ended)
            await asyncio.sleep(0.001)
            turns.done(batch)
        return began

    assert in_virtual_time(begin_after, Turns(busy_share=0.5)) == pytest.approx([0.001, 0.006, 0.010])


def test_a_quiet_commit_beside_a_busy_one_is_no_end_of_it() -> None:
    async def begins_after(source: Arriving[FakeBatch], turns: Turns) -> float:
        loop, flood = asyncio.get_running_loop(), busy()
        source.arrive(flood)
        await turns.take(source)
        loop.call_later(0.001, lambda: source.new[-1].set_result(FakeBatch([core_envelope()])))
        quiet = await turns.take(source)
        await asyncio.sleep(0.001)
        turns.done(quiet)
        await asyncio.sleep(0.006)
        turns.done(flood)
        source.arrive(busy())
        return await until_taken(turns, source)

    assert in_virtual_time(begins_after, Turns(busy_share=0.5)) == pytest.approx(0.008)


def test_of_two_at_once_the_longer_rest_counts() -> None:
    async def begins_after(source: Arriving[FakeBatch], turns: Turns) -> float:
        one, other = busy(), busy()
        source.arrive(one)
        await turns.take(source)
        source.arrive(other)
        await turns.take(source)  # after 20 ms: the first is slow
        await asyncio.sleep(0.005)
        turns.done(one)
        await asyncio.sleep(0.001)
        turns.done(other)
        source.arrive(busy())
        return await until_taken(turns, source)

    assert in_virtual_time(begins_after, Turns(0.02, busy_share=0.5)) == pytest.approx(0.019)


def busy(*, beside_quiet: bool = True) -> FakeBatch:
    batch = FakeBatch([core_envelope() for _ in range(16)])
    batch.beside_quiet = beside_quiet
    return batch


async def committed(turns: Turns, source: Arriving[FakeBatch], seconds: float) -> None:
    batch = await turns.take(source)
    await asyncio.sleep(seconds)
    turns.done(batch)


async def until_taken(turns: Turns, source: Arriving[FakeBatch]) -> float:
    began = asyncio.get_running_loop().time()
    await turns.take(source)
    return asyncio.get_running_loop().time() - began


def in_virtual_time(work: Callable[[Arriving[FakeBatch], Turns], Coroutine[None, None, _T]], turns: Turns) -> _T:
    async def run() -> _T:
        return await work(Arriving(), turns)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(run())
