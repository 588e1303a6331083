"""When it is tried again: whatever the settings, in the future, within bounds, and with an end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError
from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult
from smtp_proxy.worker.retry import RetryPolicy, duration, read_schedules

RECEIVED = datetime(2026, 1, 1, tzinfo=UTC)
seconds = st.floats(0.001, 1e7)
chances = st.floats(0, 1, exclude_max=True)
policies = st.builds(RetryPolicy, seconds, st.floats(1, 100), seconds, st.floats(0, 1), seconds)
results = st.builds(
    RecipientResult,
    st.integers(0, 100),
    st.sampled_from(Outcome),
    st.sampled_from([0, 250, 421, 451, 550]),
    st.just(""),
    st.text(max_size=30),
    st.just("mx.example:25"),
)


@given(policies, st.integers(1, 10_000), chances)
def test_a_delay_keeps_within_its_bounds(policy: RetryPolicy, attempt: int, chance: float) -> None:
    delay = policy.delay_seconds(attempt, chance)
    shortest = min(policy.initial_seconds, policy.max_seconds) * (1 - policy.jitter)
    assert shortest * 0.999 <= delay <= policy.max_seconds * (1 + policy.jitter) * 1.001


@given(policies, st.integers(1, 200), chances)
def test_delays_never_get_shorter(policy: RetryPolicy, attempt: int, chance: float) -> None:
    assert policy.delay_seconds(attempt, chance) <= policy.delay_seconds(attempt + 1, chance)


@given(policies, results, st.integers(1, 200), seconds, chances)
def test_what_becomes_of_a_result(
    policy: RetryPolicy, result: RecipientResult, attempt: int, age: float, chance: float
) -> None:
    now = RECEIVED + timedelta(seconds=age)
    recorded, again = policy.settle(
        result, attempt_number=attempt, received_at=RECEIVED, now=now, random=lambda: chance
    )
    last_call = RECEIVED + timedelta(seconds=policy.give_up_seconds)
    assert (recorded.number, recorded.reply_code) == (result.number, result.reply_code)
    if result.outcome not in (Outcome.DEFERRED, Outcome.UNKNOWN):
        assert (recorded, again) == (result, None)
    elif now >= last_call:
        assert again is None
        assert (recorded.outcome, recorded.enhanced_code) == (Outcome.REFUSED, "5.4.7")
        assert recorded.reply_text.endswith(result.reply_text)
    else:
        assert recorded == result
        assert again is not None
        assert now <= again <= last_call


@given(st.builds(RetryPolicy, st.floats(1, 1e4), st.floats(1, 4), st.floats(1, 1e4), st.floats(0, 1), seconds), chances)
def test_every_message_comes_to_an_end(policy: RetryPolicy, chance: float) -> None:
    """Deferred for ever, it is given up after a number of attempts that the settings bound."""
    deferred = RecipientResult(0, Outcome.DEFERRED, 451, "", "later", "mx.example:25")
    floor = max(min(policy.initial_seconds, policy.max_seconds) * (1 - policy.jitter), 1e-6)
    policy = replace(policy, give_up_seconds=min(policy.give_up_seconds, floor * 300))
    now, attempts = RECEIVED, 0
    again: datetime | None = RECEIVED
    while again is not None:
        now, attempts = again, attempts + 1
        recorded, again = policy.settle(
            deferred, attempt_number=attempts, received_at=RECEIVED, now=now, random=lambda: max(chance, 0.01)
        )
        assert attempts < 1000
    assert recorded.outcome is Outcome.REFUSED
    assert now >= RECEIVED + timedelta(seconds=policy.give_up_seconds)


@given(st.floats(0.001, 1e9))
def test_a_duration_is_said_in_words(span: float) -> None:
    count, unit = duration(span).split(" ")
    assert float(count) > 0
    assert unit.removesuffix("s") in {"second", "minute", "hour", "day"}


SCHEDULED = RetryPolicy(
    60, 2, 4 * 3600, 0, 4 * 86_400, read_schedules("policy=0.5,1,2 ses/*=10 ses/quota=1,30 quota=15")
)


@pytest.mark.parametrize(
    ("route", "kind", "delays"),
    [
        ("smarthost", Kind.POLICY, [30, 60, 120, 120]),
        ("smarthost", Kind.SOFT, [60, 120, 240, 480]),
        ("smarthost", Kind.QUOTA, [900, 900, 900, 900]),
        ("ses", Kind.POLICY, [600, 600, 600, 600]),
        ("ses", Kind.QUOTA, [60, 1800, 1800, 1800]),
    ],
)
def test_the_most_particular_schedule_counts(route: str, kind: Kind, delays: list[float]) -> None:
    assert [SCHEDULED.delay_seconds(n, 0.5, route, kind) for n in range(1, 5)] == delays


def test_a_schedule_is_jittered_and_bounded_as_well() -> None:
    policy = replace(SCHEDULED, jitter=0.5, max_seconds=100)
    assert policy.delay_seconds(3, 0.0, "x", Kind.POLICY) == 50
    assert policy.delay_seconds(1, 0.5, "ses", Kind.TLS) == 100


@pytest.mark.parametrize("text", ["policy", "policy=", "angry=1", "policy=1,x", "policy=0", "ses/=1", "policy=inf"])
def test_a_schedule_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match="RETRY_SCHEDULES: "):
        read_schedules(text)


def test_the_settings_have_schedules() -> None:
    policy = RetryPolicy.of(Settings.load({}, {}))
    assert policy.delay_seconds(1, 0.5, "smarthost", Kind.POLICY) < policy.delay_seconds(1, 0.5, "smarthost", Kind.SOFT)
    assert policy.delay_seconds(1, 0.5, "smarthost", Kind.QUOTA) > policy.delay_seconds(1, 0.5, "smarthost", Kind.SOFT)


def test_what_is_merely_postponed_is_not_given_up_at_its_age_but_at_twice_that() -> None:
    """It was once bounced without anybody having been asked at that age."""
    busy = RecipientResult(0, Outcome.DEFERRED, 0, "", "busy", "mx.example:25", Kind.LOCAL, postponed_seconds=5.0)

    def settle(result: RecipientResult, days: float, **own: float) -> RecipientResult:
        now = RECEIVED + timedelta(days=days)
        recorded, again = SCHEDULED.settle(
            result, attempt_number=9, received_at=RECEIVED, now=now, random=lambda: 0.5, **own
        )
        assert (again is None) == (recorded.outcome is Outcome.REFUSED)
        assert again is None or again >= now
        return recorded

    assert settle(busy, 4) == settle(busy, 7.9) == busy
    assert settle(busy, 8).reply_text == "given up after 8 days; at last: busy"
    assert settle(busy, 1.9, give_up_seconds=86_400.0) == busy
    assert settle(busy, 2, give_up_seconds=86_400.0).outcome is Outcome.REFUSED
    asked = replace(busy, postponed_seconds=0.0)
    assert settle(asked, 4).reply_text == "given up after 4 days; at last: busy"


def test_what_may_have_arrived_is_not_given_up_where_it_is_to_be_held() -> None:
    """Its sender was once told that it could not be delivered."""
    unknown = RecipientResult(0, Outcome.UNKNOWN, 0, "", "no answer", "mx.example:25")
    late = RECEIVED + timedelta(days=9)

    def settle(*, holds: bool) -> Outcome:
        recorded, _ = SCHEDULED.settle(
            unknown, attempt_number=9, received_at=RECEIVED, now=late, random=lambda: 0.5, holds_unknown=holds
        )
        return recorded.outcome

    assert (settle(holds=True), settle(holds=False)) == (Outcome.UNKNOWN, Outcome.REFUSED)
