"""The circuit breaker of one next hop."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.delivery.breaker import COOL_DOWN_MAX_SECONDS, COOL_DOWN_SECONDS, FAILURES, JITTER, Breaker


def opened(chance: float = 0.5) -> Breaker:
    breaker = Breaker(lambda: chance)
    for _ in range(FAILURES):
        breaker.failed(0.0, "connection refused")
    return breaker


def test_it_opens_after_failures_in_a_row_and_no_sooner() -> None:
    breaker = Breaker(lambda: 0.5)
    for _ in range(FAILURES - 1):
        assert not breaker.failed(0.0, "refused")
        assert breaker.allows(0.0)
    breaker.succeeded()
    for _ in range(FAILURES - 1):
        assert not breaker.failed(0.0, "refused")
    assert breaker.failed(0.0, "refused")
    assert not breaker.allows(0.0)


def test_after_the_cool_down_one_probe_goes_and_no_second() -> None:
    breaker = opened()
    assert not breaker.allows(COOL_DOWN_SECONDS - 0.1)
    assert breaker.allows(COOL_DOWN_SECONDS)
    assert not breaker.may_go(COOL_DOWN_SECONDS)
    assert not breaker.allows(COOL_DOWN_SECONDS + 1)
    breaker.succeeded()
    assert breaker.allows(COOL_DOWN_SECONDS + 1)
    assert breaker.is_pristine


def test_a_failed_probe_doubles_the_cool_down_up_to_a_bound() -> None:
    breaker, now, waits = opened(), 0.0, []
    for _ in range(8):
        began = now
        while not breaker.allows(now):
            now += 0.5
        waits.append(now - began)
        assert breaker.failed(now, "refused", breaker.probe)
    assert waits[:3] == [COOL_DOWN_SECONDS, COOL_DOWN_SECONDS * 2, COOL_DOWN_SECONDS * 4]
    assert waits[-1] == COOL_DOWN_MAX_SECONDS


def test_a_probe_that_is_never_heard_of_gives_way() -> None:
    breaker = opened()
    assert breaker.allows(COOL_DOWN_SECONDS)
    assert breaker.allows(COOL_DOWN_SECONDS + 60)


def test_what_began_before_it_opened_is_no_news() -> None:
    breaker = opened()
    assert not breaker.failed(10.0, "refused")
    assert breaker.allows(COOL_DOWN_SECONDS)


def test_what_began_before_it_opened_is_no_news_of_a_probe_that_is_under_way() -> None:
    """It was counted as the probe's failure: the real one went on for nothing, and the pause was twice as long."""
    breaker = opened()
    assert breaker.allows(COOL_DOWN_SECONDS)
    assert not breaker.failed(COOL_DOWN_SECONDS + 1, "timed out")
    assert breaker.is_probed(COOL_DOWN_SECONDS + 1)
    assert breaker.failed(COOL_DOWN_SECONDS + 2, "refused", breaker.probe)
    assert breaker.allows(COOL_DOWN_SECONDS * 3 + 2), "the second pause, not the third"


def test_a_probe_that_gave_way_and_learned_nothing_makes_no_room_for_a_third() -> None:
    breaker = opened()
    assert breaker.allows(COOL_DOWN_SECONDS)
    first = breaker.probe
    assert breaker.allows(COOL_DOWN_SECONDS + 60)
    breaker.not_asked(first)
    assert breaker.is_probed(COOL_DOWN_SECONDS + 61)
    breaker.not_asked(breaker.probe)
    assert breaker.may_go(COOL_DOWN_SECONDS + 61)


def test_one_that_gave_way_still_fails_when_its_successor_learned_nothing() -> None:
    """Where a limit let one go at a time, and the one that hung was it, the circuit never opened anew."""
    breaker = opened()
    assert breaker.allows(COOL_DOWN_SECONDS)
    first = breaker.probe
    assert breaker.allows(COOL_DOWN_SECONDS + 60)
    breaker.not_asked(breaker.probe)
    assert breaker.failed(COOL_DOWN_SECONDS + 90, "timed out", first)


def test_one_that_is_broken_off_when_another_has_failed_changes_nothing() -> None:
    breaker = opened()
    assert breaker.allows(COOL_DOWN_SECONDS)
    first = breaker.probe
    assert breaker.allows(COOL_DOWN_SECONDS + 60)
    second = breaker.probe
    assert breaker.allows(COOL_DOWN_SECONDS + 120)
    assert breaker.failed(COOL_DOWN_SECONDS + 130, "timed out", first)
    breaker.not_asked(breaker.probe)
    assert not breaker.failed(COOL_DOWN_SECONDS + 131, "timed out", second)


def test_of_probes_that_all_hang_the_first_to_fail_opens_it_anew_and_the_next_is_no_news() -> None:
    breaker = opened()
    assert breaker.allows(COOL_DOWN_SECONDS)
    first = breaker.probe
    assert breaker.allows(COOL_DOWN_SECONDS + 60)
    assert breaker.failed(COOL_DOWN_SECONDS + 90, "timed out", first)
    assert not breaker.failed(COOL_DOWN_SECONDS + 91, "timed out", breaker.probe)
    assert not breaker.may_go(COOL_DOWN_SECONDS * 3 + 89)
    assert breaker.may_go(COOL_DOWN_SECONDS * 3 + 90)


def test_the_text_names_failures_and_when_it_is_probed() -> None:
    text = opened().text(2.0)
    assert text == "not tried: 5 failures in a row, at last: connection refused; probed again in 3 s"


@given(st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_its_share(chance: float) -> None:
    breaker = opened(chance)
    assert not breaker.allows(COOL_DOWN_SECONDS * (1 - JITTER) - 0.01)
    assert breaker.allows(COOL_DOWN_SECONDS * (1 + JITTER) + 0.01)
