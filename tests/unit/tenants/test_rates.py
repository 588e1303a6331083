"""A sliding minute: never more than the limit in any of them, and no less than could be."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from limits_suite import Limits, Reserve, arrivals, assert_never_more, leaving, limits

from smtp_proxy.tenants.rates import Ledger


def reserving(ledger: Ledger, limits: Limits) -> Reserve:
    async def reserve(now: float, counts: Sequence[int]) -> list[float]:
        return ledger.reserve(
            now,
            counts,
            messages_per_minute=limits.messages,
            recipients_per_minute=limits.recipients,
            most_ahead_seconds=limits.most_ahead_seconds,
        )

    return reserve


def reserve(ledger: Ledger, now: float, count: int, *, messages: int | None, ahead: float = 0) -> list[float]:
    return ledger.reserve(
        now, [1] * count, messages_per_minute=messages, recipients_per_minute=None, most_ahead_seconds=ahead
    )


@settings(max_examples=400)
@given(limits(), arrivals())
async def test_never_more_than_the_limit_in_any_minute(limits: Limits, steps: list[tuple[float, list[int]]]) -> None:
    assert_never_more(limits, await leaving(reserving(Ledger(), limits), limits, steps))


@given(limits(), arrivals())
async def test_they_leave_in_the_order_they_came(limits: Limits, steps: list[tuple[float, list[int]]]) -> None:
    gone = await leaving(reserving(Ledger(), limits), limits, steps)
    seconds = [int(when) for when, _ in gone]
    assert seconds == sorted(seconds)


@given(limits(), arrivals())
async def test_how_they_are_put_together_does_not_matter(limits: Limits, steps: list[tuple[float, list[int]]]) -> None:
    single = [(pause if n == 0 else 0.0, [count]) for pause, counts in steps for n, count in enumerate(counts)]
    together = await leaving(reserving(Ledger(), limits), limits, steps)
    assert await leaving(reserving(Ledger(), limits), limits, single) == together


def test_all_of_the_limit_may_go_at_once_and_again_after_the_minute() -> None:
    ledger = Ledger()
    assert reserve(ledger, 100.5, 5, messages=5) == [0.0] * 5
    assert reserve(ledger, 100.9, 1, messages=5) == [pytest.approx(60.1)]
    assert reserve(ledger, 160.99, 1, messages=5) == [pytest.approx(0.01)]
    assert reserve(ledger, 161.0, 6, messages=5) == [0.0] * 5 + [61.0]


def test_what_is_turned_away_takes_nothing() -> None:
    ledger = Ledger()
    reserve(ledger, 0, 2, messages=2)
    for second in range(1, 60):
        assert reserve(ledger, second, 3, messages=2)[0] > 0
    assert reserve(ledger, 61, 2, messages=2) == [0.0, 0.0]


def test_what_is_put_off_leaves_at_the_limit() -> None:
    ledger = Ledger()
    delays = reserve(ledger, 0, 7, messages=3, ahead=1000)
    assert delays == [0, 0, 0, 61, 61, 61, 122]
    assert reserve(ledger, 10, 1, messages=3, ahead=1000) == [112], "behind the others"
    assert reserve(ledger, 10, 1, messages=3, ahead=50) == [112], "and nothing is taken by what is too late"
    assert reserve(ledger, 10, 1, messages=3, ahead=1000) == [112]


def test_more_recipients_than_a_minute_has_need_a_whole_one() -> None:
    ledger = Ledger()
    kinds = {"messages_per_minute": None, "recipients_per_minute": 10, "most_ahead_seconds": 0.0}
    assert ledger.reserve(0, [50], **kinds) == [0.0]
    assert ledger.reserve(1, [1], **kinds) == [60.0]
    assert ledger.reserve(61, [4, 6, 1], **kinds) == [0.0, 0.0, 61.0]


def test_a_limit_that_changed_holds_at_once() -> None:
    ledger = Ledger()
    reserve(ledger, 0, 10, messages=10)
    assert reserve(ledger, 1, 1, messages=20) == [0.0]
    assert reserve(ledger, 2, 1, messages=5) == [59]
    assert reserve(ledger, 2, 1, messages=None) == [0.0]


def test_it_forgets() -> None:
    ledger = Ledger()
    for second in range(0, 10_000, 7):
        reserve(ledger, second, 1, messages=100)
    assert len(ledger._entries) <= 61
    ledger.forget(20_000)
    assert not ledger
