"""Alarms and policies of autoscaling, as the simulation has them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.planning.fleet import Fleet
from smtp_proxy.planning.scaling import Autoscaler, Datapoint
from smtp_proxy.planning.stack import Service, Stack, load

SERVICE = Service("submission", 0.5, 1.0, 2, 20, 500.0)
SCALING = load(None, "production").scaling
WORKER = Service("worker", 0.5, 1.0, 1, 10, 1000.0, backlog=True)


def each(per_task: float, cpu_percent: float, busy_percent: float = 0.0) -> Datapoint:
    """Of each task; `decisions` says how many there are."""
    return Datapoint(per_task, cpu_percent, 1, busy_percent)


QUIET, BUSY = each(100.0, 50.0), each(900.0, 50.0)


def decisions(production: Stack, points: list[Datapoint], tasks: int = 4, service: Service = SERVICE) -> list[int]:
    """What is wanted after each period, as long as it is granted at once."""
    scaler, made = Autoscaler(service, production.scaling, 300), []
    for number, point in enumerate(points):
        tasks = scaler.decide(replace(point, tasks=tasks), tasks, 60.0 * number)
        made.append(tasks)
    return made


def test_connections_scale_out_after_three_periods(production: Stack) -> None:
    """SCALE-004: by as much as the metric is above its target."""
    assert decisions(production, [BUSY, BUSY, BUSY]) == [4, 4, 8]
    assert decisions(production, [BUSY, QUIET, BUSY, BUSY]) == [4, 4, 4, 4]


def test_connections_alone_take_nothing_away(production: Stack) -> None:
    """disable_scale_in: another policy that takes tasks away would be the opponent of CPU, which may be high."""
    assert decisions(production, [QUIET] * 30) == [4] * 30


def test_cpu_above_seventy_for_two_minutes(production: Stack) -> None:
    """SCALE-008."""
    hot = each(100.0, 70.0)
    assert decisions(production, [hot, hot]) == [4, 6]
    assert decisions(production, [each(100.0, 69.9)] * 2) == [4, 4]


def test_cpu_below_thirty_for_five_minutes(production: Stack) -> None:
    """SCALE-009: and again only after the cooldown."""
    cold = each(200.0, 30.0)
    assert decisions(production, [cold] * 10) == [4, 4, 4, 4, 3, 3, 3, 3, 3, 2]
    assert decisions(production, [each(200.0, 30.1)] * 10)[-1] == 4


def test_cpu_takes_no_task_away_whose_connections_the_others_could_not_bear(production: Stack) -> None:
    """SCALE-009: nine tenths of 500 of each of three are 1,350, which four have by 337.5."""
    assert decisions(production, [each(337.5, 5.0)] * 30)[-1] == 4
    assert decisions(production, [each(337.0, 5.0)] * 5)[-1] == 3


def test_cpu_takes_no_worker_away_that_waits_for_next_hops(production: Stack) -> None:
    """SCALE-009: three of four workers that are half in use would be in use by two thirds, which is below 70 %."""
    assert decisions(production, [each(0.0, 5.0, 50.0)] * 5, service=WORKER)[-1] == 3
    assert decisions(production, [each(0.0, 5.0, 52.5)] * 30, service=WORKER)[-1] == 4
    assert decisions(production, [each(0.0, 5.0, 34.0)] * 5, tasks=2, service=WORKER)[-1] == 1
    assert decisions(production, [each(0.0, 5.0, 35.0)] * 30, tasks=2, service=WORKER)[-1] == 2
    assert decisions(production, [each(675.0, 5.0, 0.0)] * 30, service=WORKER)[-1] == 4, "nor one with a backlog"


def test_of_two_policies_the_larger_capacity_counts(production: Stack) -> None:
    """Connections want more though CPU is idle."""
    assert decisions(production, [each(900.0, 5.0)] * 6)[-1] > 4


@pytest.mark.parametrize(("sessions", "settles_at"), [(1290, 3), (900, 3), (899, 2), (1800, 5), (1799, 4)])
def test_sessions_that_stay_settle(sessions: int, settles_at: int, production: Stack) -> None:
    """Whatever there was before, and though they take no CPU: the count of tasks changes no more."""
    for first in (2, 7):
        scaler, counts, tasks = Autoscaler(SERVICE, production.scaling, 300), [], first
        for minute in range(300):
            tasks = scaler.decide(Datapoint(sessions / tasks, 1.0, tasks), tasks, 60.0 * minute)
            counts.append(tasks)
        assert len(set(counts[60:])) == 1
        assert sessions / tasks <= SERVICE.per_task
        assert tasks <= settles_at


def test_out_again_after_its_cooldown_alone(production: Stack) -> None:
    scaler = Autoscaler(SERVICE, production.scaling, 300)
    hot = Datapoint(100.0, 90.0, 4)
    scaler.decide(hot, 4, 0.0)
    assert scaler.decide(hot, 4, 60.0) == 6
    assert scaler.decide(hot, 6, 119.0) == 6
    assert scaler.decide(hot, 6, 120.0) == 8


@given(
    st.lists(st.builds(Datapoint, st.floats(0, 1e7), st.floats(0, 100), st.integers(1, 20)), min_size=1, max_size=60),
    st.integers(2, 20),
)
def test_never_beyond_the_bounds(points: list[Datapoint], tasks: int) -> None:
    """SCALE-011."""
    scaler = Autoscaler(SERVICE, SCALING, 300)
    for number, point in enumerate(points):
        tasks = scaler.decide(point, tasks, 60.0 * number)
        assert SERVICE.min_tasks <= tasks <= SERVICE.max_tasks


@given(st.lists(st.tuples(st.integers(-5, 60), st.integers(0, 120)), max_size=40))
def test_a_fleet_stays_within_its_bounds(wishes: list[tuple[int, int]]) -> None:
    """SCALE-011: whatever is wanted, and however fast."""
    fleet, now = Fleet(SERVICE, 60.0), 0.0
    for tasks, pause in wishes:
        now += pause
        fleet.advance(now)
        fleet.want(tasks, now, 300.0)
        assert SERVICE.min_tasks <= fleet.wanted <= SERVICE.max_tasks
        assert 0 <= fleet.running <= fleet.wanted
    fleet.advance(now + 61)
    assert fleet.running == fleet.wanted
    fleet.advance(now + 301)
    assert fleet.paid == fleet.running


def test_what_has_not_started_goes_first() -> None:
    fleet = Fleet(SERVICE, 60.0)
    fleet.want(5, 0.0, 300.0)
    fleet.want(3, 10.0, 300.0)
    assert (fleet.running, fleet.wanted, fleet.paid) == (2, 3, 3)
    fleet.advance(60.0)
    assert fleet.running == 3
    fleet.want(2, 70.0, 300.0)
    assert (fleet.running, fleet.paid) == (2, 3), "one drains, and is paid for"
    fleet.advance(370.0)
    assert fleet.paid == 2


def test_a_service_without_a_target_goes_by_cpu(production: Stack) -> None:
    service = replace(SERVICE, per_task=0.0)
    assert decisions(production, [each(1e9, 50.0)] * 20, service=service)[-1] == 4
