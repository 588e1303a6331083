"""The line before one destination."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.delivery.line import Line
from smtp_proxy.delivery.standstill import UNNOTICED_SECONDS
from smtp_proxy.model.lane import Lane


def test_tenants_take_turns() -> None:
    line: Line[str] = Line(0.0)
    for n in range(100):
        line.join("loud", f"loud-{n}", 0.0)
    line.join("quiet", "quiet-0", 0.0)
    assert [line.take() for _ in range(3)] == ["loud-0", "quiet-0", "loud-1"]


def test_of_a_tenants_own_transactional_goes_first_and_bulk_has_its_share() -> None:
    line: Line[str] = Line(0.0)
    for n in range(50):
        line.join("a", f"bulk-{n}", 0.0, Lane.BULK)
    for n in range(50):
        line.join("a", f"first-{n}", 0.0)
    taken = [line.take() for _ in range(20)]
    assert taken[0] == "first-0"
    assert [ticket for ticket in taken if ticket and ticket.startswith("bulk")] == [f"bulk-{n}" for n in range(4)]
    line.give_up("a", "bulk-4")
    rest = [line.take() for _ in range(len(line))]
    assert len(rest) == 79
    assert "bulk-4" not in rest
    assert line.take() is None


def test_whoever_is_transactional_expects_to_wait_for_its_lane_alone() -> None:
    line: Line[str] = Line(0.0)
    line.begin(0.0)
    for n in range(100):
        line.join("a", f"bulk-{n}", 0.0, Lane.BULK)
    assert line.wait_seconds("a", 0.01) * 20 < line.wait_seconds("a", 0.01, Lane.BULK)
    assert sorted(line.overdue(0.0)) == sorted(f"bulk-{n}" for n in range(100))
    assert not line


def test_a_line_that_stands_gets_longer_by_itself() -> None:
    line: Line[str] = Line(0.0)
    line.begin(0.0)
    assert line.wait_seconds("a", 0.01) < 0.1
    assert line.wait_seconds("a", 30.0) == 30.0 - UNNOTICED_SECONDS
    line.end(30.0, 30.0)
    assert line.wait_seconds("a", 31.0) < 10


def test_what_failed_is_a_measure_until_it_is_back() -> None:
    line: Line[str] = Line(0.0)
    now = 0.0
    for seconds, well in ((0.16, True), (30.0, False)):
        for _ in range(100):
            line.begin(now)
            now += seconds
            line.end(seconds, now, well=well)
    line.begin(now)
    assert round(line.pace_seconds(16), 3) == 0.01
    assert round(line.wait_seconds("a", now)) == 30
    line.recovered()
    assert round(line.wait_seconds("a", now), 2) == 0.16


def test_what_fails_after_it_was_back_or_at_rest_is_still_no_pace() -> None:
    line: Line[str] = Line(0.0)
    line.recovered()
    for began in (1.0, 100.0):
        line.begin(began)
        line.end(30.0, began + 30, well=False)
        assert line.pace_seconds(1) == 0.05


def test_after_it_is_back_it_is_as_if_nothing_had_failed() -> None:
    waits = []
    for failures in (0, 500):
        line: Line[str] = Line(0.0)
        for n in range(500 + failures):
            line.begin(n / 500)
            line.end(0.2, n / 500, well=n < 500)
        line.recovered()
        line.begin(3.0)
        line.end(60.0, 3.0)
        waits.append(line.wait_seconds("a", 3.0))
    assert waits[0] == pytest.approx(waits[1])


def rounds(line: Line[str], now: float, seconds: float, *, times: int) -> float:
    """Forty-eight at once that take so long each, so many times. When the last of them ended."""
    for _ in range(times):
        for _ in range(48):
            line.begin(now)
        now += seconds
        for _ in range(48):
            line.end(seconds, now)
    return now


def test_a_moment_in_which_nothing_moved_is_no_pace() -> None:
    """All that were under way then had lasted for so long, and were all that the mean knew: eight times as long."""
    line: Line[str] = Line(0.0)
    now = rounds(line, 0.0, 0.12, times=100)
    rounds(line, now, 1.0, times=1)
    assert 0.12 < line.pace_seconds(1) < 0.16


def test_it_learns_within_some_rounds_that_a_destination_has_become_slow() -> None:
    line: Line[str] = Line(0.0)
    now = rounds(line, 0.0, 0.12, times=100)
    rounds(line, now, 20.0, times=4)
    assert 15 < line.pace_seconds(1) <= 20


def test_it_learns_within_some_seconds_that_a_destination_has_become_quick() -> None:
    line: Line[str] = Line(0.0)
    now = rounds(line, 0.0, 20.0, times=10)
    assert line.pace_seconds(1) > 19
    now = rounds(line, now, 0.1, times=50)
    assert line.pace_seconds(1) < 0.7
    rounds(line, now, 0.1, times=200)
    assert line.pace_seconds(1) < 0.15


def test_one_at_a_time_is_learned_from_the_last_few() -> None:
    line: Line[str] = Line(0.0)
    now = 0.0
    for _ in range(30):
        line.begin(now)
        now += 20.0
        line.end(20.0, now)
    assert line.pace_seconds(1) > 18


def test_it_stands_while_none_ends_and_none_begins() -> None:
    line: Line[str] = Line(0.0)
    assert line.stood_seconds(30.0) == 0.0
    line.begin(0.0)
    assert line.stood_seconds(30.0) == 30.0
    line.begin(30.0)
    assert line.stood_seconds(31.0) == 1.0, "one that lasts is no reason while others move"
    line.end(None, 32.0)
    assert line.stood_seconds(33.0) == 1.0
    line.end(None, 33.0)
    assert line.stood_seconds(63.0) == 0.0


def test_what_was_measured_before_a_rest_is_forgotten() -> None:
    line: Line[str] = Line(0.0)
    for _ in range(100):
        line.begin(0.0)
        line.end(20.0, 0.0)
    line.begin(59.0)
    assert line.wait_seconds("a", 59.0) > 19
    line.end(None, 59.0)
    line.begin(120.0)
    assert line.wait_seconds("a", 120.0) == line.pace_seconds(1) == 0.05


def test_a_tenant_with_a_short_part_waits_less_than_one_with_a_long_part() -> None:
    line: Line[str] = Line(0.0)
    line.begin(0.0)
    for n in range(200):
        line.join("loud", f"{n}", 0.0)
    assert line.wait_seconds("quiet", 0.0) * 20 < line.wait_seconds("loud", 0.0)


def test_the_overdue_leave_and_the_others_stay() -> None:
    line: Line[str] = Line(0.0)
    line.join("a", "old", 0.0)
    line.join("a", "new", 4.0)
    line.join("b", "old too", 1.0)
    assert sorted(line.overdue(2.0)) == ["old", "old too"]
    assert (len(line), line.take(), line.take()) == (1, "new", None)


@given(st.lists(st.tuples(st.sampled_from(["join", "take", "give up"]), st.integers(0, 4)), max_size=200))
def test_nobody_is_lost_or_served_twice(moves: list[tuple[str, int]]) -> None:
    line: Line[int] = Line(0.0)
    inside: dict[int, int] = {}
    served: list[int] = []
    for number, (move, tenant) in enumerate(moves):
        if move == "join":
            line.join(tenant, number, float(number))
            inside[number] = tenant
        elif move == "take":
            if (ticket := line.take()) is not None:
                served.append(ticket)
                del inside[ticket]
            else:
                assert not inside
        elif inside:
            ticket = next(iter(inside))
            line.give_up(inside.pop(ticket), ticket)
        assert len(line) == len(inside)
        assert bool(line) == bool(inside)
    assert len(set(served)) == len(served)
