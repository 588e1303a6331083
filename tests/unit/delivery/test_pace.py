"""Additive increase, multiplicative decrease."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.delivery.pace import PAUSE_MAX_SECONDS, PUT_OFF, TURNED_AWAY, Pace


def test_421_halves_and_a_round_of_successes_adds_one() -> None:
    pace = Pace(16)
    assert pace.slow_down(TURNED_AWAY, 0.0, 1.0)
    assert pace.concurrency == 8
    for _ in range(9):
        pace.went_well()
    assert pace.concurrency == 9


def test_what_was_under_way_does_not_slow_it_down_again() -> None:
    pace = Pace(16)
    assert pace.slow_down(TURNED_AWAY, 0.0, 1.0)
    assert not pace.slow_down(TURNED_AWAY, 0.5, 1.1)
    assert pace.slow_down(TURNED_AWAY, 1.5, 2.0)
    assert pace.concurrency == 4


def test_at_one_at_a_time_it_pauses_and_recovers() -> None:
    pace = Pace(1)
    assert pace.slow_down(TURNED_AWAY, 0.0, 10.0)
    assert pace.wait_seconds(10.0) == 0.25
    assert pace.wait_seconds(10.25) == 0
    pace.began(10.25)
    assert pace.slow_down(TURNED_AWAY, 10.25, 10.3)
    assert pace.pause_seconds == 0.5
    for _ in range(3):
        pace.went_well()
    assert pace.is_full


@given(st.integers(1, 200), st.lists(st.sampled_from(["well", "put off", "turned away"]), max_size=300))
def test_it_stays_within_its_bounds_and_always_recovers(most: int, events: list[str]) -> None:
    pace, now = Pace(most), 0.0
    for event in events:
        now += 1.0
        if event == "well":
            pace.went_well()
        else:
            pace.slow_down(PUT_OFF if event == "put off" else TURNED_AWAY, now, now)
        assert 1 <= pace.concurrency <= most
        assert 0 <= pace.pause_seconds <= PAUSE_MAX_SECONDS
    for _ in range(most * most + 50):
        pace.went_well()
    assert pace.is_full
