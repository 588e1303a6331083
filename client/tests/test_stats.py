"""Percentiles, counts and the stopwatch."""

import statistics
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtp_proxy_client.errors import ClientError, ConnectionFailed
from smtp_proxy_client.stats import (
    MAX_FAILURE_TEXTS,
    OTHER_FAILURES,
    PHASES,
    Recorder,
    Run,
    Summary,
    percentile,
    timed,
)

RUN = Run("batch", "localhost", 587, "starttls", 10)
DURATIONS = st.lists(st.floats(0, 1e6), min_size=1, max_size=300)
quickly = settings(max_examples=100, deadline=None)


def test_percentiles_of_known_numbers():
    """REQ-INFRA-CLIENT-012: nearest rank; the median lies between the two in the middle."""
    summary = Summary.of([float(n) for n in range(100, 0, -1)])
    assert summary == Summary(count=100, min=1.0, median=50.5, p95=95.0, p99=99.0, max=100.0)
    assert Summary.of([3.0, 1.0, 2.0]) == Summary(count=3, min=1.0, median=2.0, p95=3.0, p99=3.0, max=3.0)


def test_one_value_is_all_of_them():
    """REQ-INFRA-CLIENT-012: a single mail has percentiles too."""
    assert Summary.of([0.25]) == Summary(count=1, min=0.25, median=0.25, p95=0.25, p99=0.25, max=0.25)


@given(durations=DURATIONS, percent=st.integers(1, 100))
@quickly
def test_percentile_is_the_smallest_that_covers(durations, percent):
    """REQ-INFRA-CLIENT-012: at least so many percent are not above it, and fewer are below it."""
    value = percentile(sorted(durations), percent)
    assert value in durations
    assert sum(d <= value for d in durations) * 100 >= percent * len(durations)
    assert sum(d < value for d in durations) * 100 < percent * len(durations)


@given(DURATIONS)
@quickly
def test_summary_is_ordered(durations):
    """REQ-INFRA-CLIENT-012: min, median, p95, p99, max never cross."""
    summary = Summary.of(durations)
    assert summary.count == len(durations)
    assert summary.median == statistics.median(durations)
    assert summary.min <= summary.p95 <= summary.p99 <= summary.max
    assert summary.min <= summary.median <= summary.max


def test_stopwatch_adds_up():
    """REQ-INFRA-CLIENT-012: a phase in two parts is one time."""
    timings = {}
    for _ in range(2):
        with timed(timings, "hello"):
            time.sleep(0.02)
    assert timings["hello"] >= 0.039


def test_stopwatch_names_the_innermost_phase_of_an_error():
    """REQ-INFRA-CLIENT-012: a phase that failed has no time, and the error knows which it was."""
    timings = {}
    with pytest.raises(ClientError) as caught, timed(timings, "total"), timed(timings, "rcpt"):
        raise ConnectionFailed("connection lost")
    assert caught.value.text == "rcpt: connection lost"
    assert timings == {}


def test_phases_come_in_the_order_of_a_mail():
    """REQ-INFRA-CLIENT-012: whatever the order they were kept in; absent ones are left out."""
    recorder = Recorder(RUN)
    recorder.accepted({"total": 0.3, "data": 0.1, "connect": 0.2})
    result = recorder.result()
    assert list(result.phases) == ["connect", "data", "total"]
    assert set(result.phases) <= set(PHASES)


def test_failed_mail_keeps_its_phases_but_no_total():
    """REQ-INFRA-CLIENT-012: `total` is of accepted mails only."""
    recorder = Recorder(RUN)
    recorder.failed({"connect": 0.2, "total": 0.3}, ConnectionFailed("connection lost"))
    result = recorder.result()
    assert list(result.phases) == ["connect"]
    assert (result.accepted, result.failed, result.unsent) == (0, 1, 9)


def test_different_failures_are_bounded():
    """REQ-INFRA-CLIENT-005: a server with a new text for each mail does not fill the memory."""
    recorder = Recorder(RUN)
    for number in range(MAX_FAILURE_TEXTS + 10):
        recorder.failed({}, ClientError(f"refused, id {number}"))
    recorder.failed({}, ClientError("refused, id 0"))
    failures = recorder.result().failures
    assert len(failures) == MAX_FAILURE_TEXTS + 1
    assert [(f.text, f.count) for f in failures[:2]] == [(OTHER_FAILURES, 10), ("refused, id 0", 2)]
    assert sum(f.count for f in failures) == MAX_FAILURE_TEXTS + 11


def test_failure_is_temporary_if_all_of_its_kind_were():
    """REQ-INFRA-CLIENT-005: one permanent failure makes the text permanent."""
    recorder = Recorder(RUN)
    for temporary in (True, False, True):
        recorder.failed({}, ClientError("no", temporary=temporary))
    assert [f.temporary for f in recorder.result().failures] == [False]


def test_no_count_is_lost_between_threads():
    """REQ-INFRA-CLIENT-005: connections record at the same time."""
    recorder = Recorder(RUN)

    def record():
        for _ in range(300):
            recorder.accepted({"data": 0.1})
            recorder.failed({}, ClientError("no"))

    threads = [threading.Thread(target=record) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result = recorder.result()
    assert (result.accepted, result.failed, result.failures[0].count) == (2400, 2400, 2400)
    assert result.phases["data"].count == 2400
