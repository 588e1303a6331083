"""The hand's account of turns, by lane: what bulk mail may use up, and what it may not."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtp_proxy.model.lane import Lane
from smtp_proxy.worker.hand import Hand, Turn


def held(hand: Hand, lane: Lane) -> Turn:
    """A turn in use, as `take` gives it."""
    turn = Turn(hand, lane, asyncio.get_running_loop())
    hand.hold(turn)
    return turn


def slow(hand: Hand, lane: Lane, count: int) -> list[Turn]:
    made = []
    for _ in range(count):
        made.append(held(hand, lane))
        made[-1].lend_as_slow()
    return made


async def test_slow_bulk_takes_nobody_elses_right_to_wait() -> None:
    hand = Hand(128, 200)
    slow(hand, Lane.BULK, 700)
    assert not held(hand, Lane.BULK).lend(0.05)
    assert held(hand, Lane.TRANSACTIONAL).lend(0.05)


async def test_slow_deliveries_make_a_worker_busy() -> None:
    """REQ-INFRA-SCALE-009: they hold no turn, and another worker has as little room for them."""
    hand = Hand(128, 200)
    assert hand.busy_share == 0
    turns = [held(hand, Lane.TRANSACTIONAL) for _ in range(32)]
    assert hand.busy_share == 0.25
    waits = slow(hand, Lane.TRANSACTIONAL, 512)
    assert hand.busy_share == 0.5
    waits += slow(hand, Lane.BULK, 576)
    assert hand.busy_share == 1, "more than there is room for"
    for turn in waits[:512]:
        turn.end()
    assert hand.busy_share == 0.75, "bulk has 768 of 1,024"
    for turn in [*turns, *waits[512:]]:
        turn.end()
    assert hand.busy_share == 0


async def test_who_has_a_place_goes_on_where_its_lane_has_no_turn() -> None:
    """Else it would keep the place at its destination from everybody, until slow servers answer others."""
    hand = Hand(128, 200)
    waits = held(hand, Lane.BULK)
    assert waits.lend(0.05)
    turns = [held(hand, Lane.BULK) for _ in range(116)]
    assert not hand.has_turn(Lane.BULK)
    assert hand.has_turn(Lane.TRANSACTIONAL)
    async with asyncio.timeout(10):
        await waits.regain()
    assert (hand.lent, hand.soon, hand.under_way) == (1, 0, 116)
    for turn in [waits, *turns]:
        turn.end()
    assert (hand.lent, hand.soon, hand.under_way) == (0, 0, 0)


async def test_and_when_a_turn_is_let_go_that_is_not_for_it() -> None:
    hand = Hand(10, 200)
    waits = held(hand, Lane.BULK)
    assert waits.lend(0.05)
    bulk, other = [held(hand, Lane.BULK) for _ in range(9)], held(hand, Lane.TRANSACTIONAL)
    regaining = asyncio.create_task(waits.regain())
    await asyncio.sleep(0)
    assert not regaining.done()
    other.end()
    async with asyncio.timeout(10):
        await regaining
    for turn in [waits, *bulk]:
        turn.end()
    assert (hand.lent, hand.soon, hand.under_way) == (0, 0, 0)


async def test_bulk_that_will_go_on_soon_keeps_transactional_mail_out_of_nothing() -> None:
    hand = Hand(128, 200)
    for _ in range(380):
        assert held(hand, Lane.BULK).lend(0.4)
    room = await asyncio.wait_for(hand.room(), 1)
    assert room.count > 0
    assert not room.bulk


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["hold", "lend", "slow", "end", "regain"]), st.integers(0, 40), st.booleans()),
        max_size=80,
    )
)
def test_whatever_happens_the_account_is_right(steps: list[tuple[str, int, bool]]) -> None:
    """Turns in use, lent and soon to go on are counted as they are; in the end nothing is left."""

    async def run() -> None:
        hand = Hand(6, 20)
        turns: list[Turn] = []
        tasks: list[asyncio.Task[None]] = []
        for step, which, is_bulk in steps:
            lane = Lane.BULK if is_bulk else Lane.TRANSACTIONAL
            if step == "hold" and hand.has_turn(lane):
                turns.append(held(hand, lane))
            elif turns:
                turn = turns[which % len(turns)]
                state = cast("str", turn._state)
                if step == "lend" and state == "held":
                    turn.lend(0.1)
                elif step == "slow" and state == "held":
                    turn.lend_as_slow()
                elif step == "regain" and state == "lent" and turn not in hand._regaining:
                    tasks.append(asyncio.create_task(turn.regain()))
                elif step == "end" and turn not in hand._regaining:
                    turn.end()
                    turns.remove(turn)
            await asyncio.sleep(0)
            states = [turn._state for turn in turns]
            assert hand.under_way == states.count("held") <= 6
            assert hand.lent == states.count("lent") + states.count("slow")
            assert sum(turn._state == "held" and turn.lane is Lane.BULK for turn in turns) <= 5
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for turn in turns:
            turn.end()
        assert (hand.lent, hand.soon, hand.under_way, hand._bulk_lent, hand._bulk_soon) == (0, 0, 0, 0, 0)
        assert hand._bulk_under_way == 0

    asyncio.run(run())


@pytest.mark.parametrize("concurrency", [1, 2, 9, 10, 128])
async def test_bulk_leaves_a_tenth_and_gets_at_least_one(concurrency: int) -> None:
    hand = Hand(concurrency, 200)
    taken = 0
    while hand.has_turn(Lane.BULK):
        held(hand, Lane.BULK)
        taken += 1
    assert taken == max(1, concurrency - max(1, concurrency // 10))
