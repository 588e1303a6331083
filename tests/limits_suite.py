"""What every sliding minute must do: the same runs on `tenants.rates` and on the script in Redis."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

# now in seconds, how many recipients each message has -> in how many seconds each may go
Reserve = Callable[[float, Sequence[int]], Awaitable[list[float]]]


@dataclass(frozen=True)
class Limits:
    messages: int | None
    recipients: int | None
    most_ahead_seconds: float


def limits() -> st.SearchStrategy[Limits]:
    most = st.none() | st.integers(1, 12)
    return st.builds(Limits, most, most, st.sampled_from([0.0, 90.0, 1000.0]))


def arrivals() -> st.SearchStrategy[list[tuple[float, list[int]]]]:
    """Pauses in seconds, and what comes after each."""
    pauses = st.floats(0, 3) | st.floats(0, 100) | st.sampled_from([0.0, 0.001, 59.999, 60.0, 60.001, 61.0])
    return st.lists(st.tuples(pauses, st.lists(st.integers(1, 15), min_size=1, max_size=8)), min_size=1, max_size=25)


async def leaving(
    reserve: Reserve, limits: Limits, steps: Sequence[tuple[float, Sequence[int]]], start: float = 1000.25
) -> list[tuple[float, int]]:
    """(when, recipients) of each message that was let through."""
    now, gone = start, []
    for pause, counts in steps:
        now = round(now + pause, 3)
        for count, delay in zip(counts, await reserve(now, counts), strict=True):
            assert delay >= 0
            if delay <= limits.most_ahead_seconds:
                gone.append((now + delay, count))
    return gone


def assert_never_more(limits: Limits, gone: Sequence[tuple[float, int]]) -> None:
    """In no sixty seconds more than the limit, wherever they begin."""
    for begins, _ in gone:
        window = [count for when, count in gone if begins <= when < begins + 60]
        if limits.messages is not None:
            assert len(window) <= limits.messages, (begins, window)
        if limits.recipients is not None:
            counted = [min(count, limits.recipients) for count in window]
            assert sum(counted) <= limits.recipients, (begins, window)
