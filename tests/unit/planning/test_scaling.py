"""Alarms and policies of autoscaling, as the simulation has them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.planning.fleet import Fleet
from smtp_proxy.planning.scaling import Autoscaler, Datapoint
from smtp_proxy.planning.stack import Service, Stack, load

SERVICE = Service("submission", 0.5, 1.0, 2, 20, 500.0)
SCALING = load(None, "production").scaling
QUIET, BUSY = Datapoint(100.0, 50.0), Datapoint(900.0, 50.0)


def decisions(production: Stack, points: list[Datapoint], tasks: int = 4, service: Service = SERVICE) -> list[int]:
    """What is wanted after each period, as long as it is granted at once."""
    scaler, made = Autoscaler(service, production.scaling, 300), []
    for number, point in enumerate(points):
        tasks = scaler.decide(point, tasks, 60.0 * number)
        made.append(tasks)
    return made


def test_connections_scale_out_after_three_periods(production: Stack) -> None:
    """SCALE-004: by as much as the metric is above its target."""
    assert decisions(production, [BUSY, BUSY, BUSY]) == [4, 4, 8]
    assert decisions(production, [BUSY, QUIET, BUSY, BUSY]) == [4, 4, 4, 4]


def test_and_in_after_fifteen(production: Stack) -> None:
    assert decisions(production, [QUIET] * 15)[-2:] == [4, 2], "one of four, but not below the minimum"
    almost = Datapoint(460.0, 50.0)
    assert decisions(production, [almost] * 30)[-1] == 4, "above nine tenths of the target nothing goes"


def test_cpu_above_seventy_for_two_minutes(production: Stack) -> None:
    """SCALE-008."""
    hot = Datapoint(100.0, 70.0)
    assert decisions(production, [hot, hot]) == [4, 6]
    assert decisions(production, [Datapoint(100.0, 69.9)] * 2) == [4, 4]


def test_cpu_below_thirty_for_five_minutes(production: Stack) -> None:
    """SCALE-009: and again only after the cooldown."""
    cold = Datapoint(440.0, 30.0)
    assert decisions(production, [cold] * 10) == [4, 4, 4, 4, 3, 3, 3, 3, 3, 2]
    assert decisions(production, [Datapoint(440.0, 30.1)] * 10)[-1] == 4


def test_cpu_takes_no_task_away_that_waits(production: Stack) -> None:
    """At nine tenths of the aim target tracking takes none, and CPU would be its opponent."""
    assert decisions(production, [Datapoint(450.0, 5.0)] * 10)[-1] == 4
    assert decisions(production, [Datapoint(449.0, 5.0)] * 10)[-1] == 2


def test_of_two_policies_the_larger_capacity_counts(production: Stack) -> None:
    """Connections want more though CPU is idle."""
    assert decisions(production, [Datapoint(900.0, 5.0)] * 6)[-1] > 4


def test_out_again_after_its_cooldown_alone(production: Stack) -> None:
    scaler = Autoscaler(SERVICE, production.scaling, 300)
    hot = Datapoint(100.0, 90.0)
    scaler.decide(hot, 4, 0.0)
    assert scaler.decide(hot, 4, 60.0) == 6
    assert scaler.decide(hot, 6, 119.0) == 6
    assert scaler.decide(hot, 6, 120.0) == 8


@given(
    st.lists(st.builds(Datapoint, st.floats(0, 1e7), st.floats(0, 100)), min_size=1, max_size=60),
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
    assert decisions(production, [Datapoint(1e9, 50.0)] * 20, service=service)[-1] == 4
