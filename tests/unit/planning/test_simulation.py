"""Mail over time: nothing is lost in the account, and what can be worked out by hand comes out."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtp_proxy.planning.message_costs import MessageCosts, read_costs
from smtp_proxy.planning.prices import Prices, read_prices
from smtp_proxy.planning.simulation import Circumstances, Result, Simulation
from smtp_proxy.planning.stack import Stack, load
from smtp_proxy.planning.traffic import Traffic, profile

PRODUCTION, COSTS, PRICES = load(None, "production"), read_costs(), read_prices()
# A message's worth of CPU is so small that only what a test is about limits anything.
FREE = MessageCosts("none", 1e9, 1e-9, 1e-9, 1e-9, 1e-9, 1e-9)


def run(
    traffic: Traffic,
    seconds: int = 3600,
    around: Circumstances | None = None,
    stack: Stack = PRODUCTION,
    costs: MessageCosts = COSTS,
) -> Result:
    return Simulation(stack, costs, PRICES, traffic, around).run(seconds)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0, 20_000), min_size=1, max_size=30),
    st.sampled_from([None, 5.0, 90.0]),
    st.floats(0.01, 60),
    st.floats(0.001, 5),
)
def test_every_message_is_accounted_for(
    rates: list[float], retry: float | None, session: float, delivery: float
) -> None:
    """offered = accepted + refused, and accepted = delivered + backlog."""
    around = Circumstances(session_seconds=session, delivery_seconds=delivery, retry_seconds=retry)
    result = run(lambda at: rates[int(at / 60) % len(rates)], 1800, around)
    enough = max(1.0, result.offered) * 1e-6
    assert abs(result.offered - result.accepted - result.refused) < enough
    assert abs(result.accepted - result.delivered - result.backlog) < enough
    for sample in result.samples:
        assert all(
            PRODUCTION.services[name].min_tasks <= n <= PRODUCTION.services[name].max_tasks
            for name, n in sample.tasks.items()
        )
    assert result.dollars > 0


def test_a_last_period_that_is_not_whole_counts() -> None:
    result = run(lambda _: 5000.0, 1190)
    assert result.offered == 5000.0 * 1190
    assert abs(result.offered - result.accepted - result.refused) < 1


def test_ten_thousand_a_minute_need_no_more_than_the_minimum() -> None:
    """The specification's floor, steadily."""
    result = run(profile("steady", 10_000 / 60))
    assert (result.refused, result.most_backlog, result.longest_wait) == (0, 0, 0)
    assert result.most_tasks == {"submission": 2, "submissions": 2, "worker": 1}


def test_connections_settle_where_each_task_has_its_share() -> None:
    """SCALE-004. A steady state by hand: rate x session time connections over 500 a task, and no CPU."""
    per_second, session = 1000.0, 10.0
    result = run(lambda _: per_second, 4 * 3600, Circumstances(session_seconds=session), costs=FREE)
    least = math.ceil(per_second / 2 * session / 500)
    for name in ("submission", "submissions"):
        assert least <= result.samples[-1].tasks[name] <= math.ceil(least / 0.9) + 1
    assert result.refused == 0


def test_the_first_new_task_comes_after_alarm_delay_and_start() -> None:
    """Workers at their limit from the beginning: two periods of CPU, the metric's delay, the start of a task."""
    scaling = PRODUCTION.scaling
    result = run(lambda _: 4000.0, 1200)
    by_cpu = scaling.cpu_out_minutes * scaling.metric_period
    assert result.first_scaled_out_at == by_cpu + scaling.metric_delay + scaling.task_start


def test_a_backlog_drains_as_fast_as_workers_and_not_faster() -> None:
    """By hand: one worker of half a vCPU, nine tenths of it, at its cost a message."""
    alone = replace(PRODUCTION, services={**PRODUCTION.services})
    alone.services["worker"] = replace(PRODUCTION.services["worker"], max_tasks=1)
    result = run(lambda at: 3000.0 if at < 10 else 0.0, 600, stack=alone)
    rate = 0.5 * 0.9 / COSTS.worker
    assert result.longest_wait == pytest.approx((result.accepted - 10 * rate) / rate, abs=2)
    assert result.backlog == 0


# Messages a second, and seconds for which a next hop is waited for: from a fraction of one worker to nearly all ten.
CONSTANT = [(60.0, 5.0), (50.0, 5.0), (4000 / 60, 5.0), (20.0, 20.0), (60.0, 20.0), (10_000 / 60, 1.0), (1000.0, 0.1)]


def changes(result: Result, since: float = 0.0) -> int:
    counts = [each.tasks for each in result.samples if each.at >= since]
    return sum(now != then for then, now in itertools.pairwise(counts))


@pytest.mark.parametrize(("per_second", "delivery"), CONSTANT)
def test_constant_mail_settles(per_second: float, delivery: float) -> None:
    """SCALE-005, SCALE-009: from a cold start; in the last hour no task comes or goes, and no mail waits."""
    result = run(lambda _: per_second, 3 * 3600, Circumstances(delivery_seconds=delivery))
    assert changes(result, since=7200) == 0
    assert max(each.backlog for each in result.samples if each.at >= 7200) == 0
    # Three periods of the alarm, the metric's delay and a task's start: until then the least there is has to do.
    assert result.longest_wait <= (3 + 1 + 1) * 60 + 10
    needed = per_second * max(delivery / 128, COSTS.worker / 0.45)
    assert needed <= result.samples[-1].tasks["worker"] <= math.ceil(needed / 0.7) + 1, "nor are there many too many"


def test_without_the_share_that_is_busy_it_swings() -> None:
    """What the guard is for: by backlog and CPU alone, workers that wait for next hops come and go for ever."""
    blind = replace(PRODUCTION, scaling=replace(PRODUCTION.scaling, in_busy_percent=math.inf))
    around = Circumstances(delivery_seconds=5.0)
    assert changes(run(lambda _: 60.0, 3 * 3600, around, blind), since=3600) > 10


@pytest.mark.parametrize(("per_second", "session"), [(60.0, 43.0), (1000.0, 2.0), (3000.0, 2.0), (500.0, 10.0)])
def test_sessions_settle(per_second: float, session: float) -> None:
    """SCALE-004, SCALE-009: 60/s of 43 s are 1,290 sessions for each service, three tasks of 430, or two of 645."""
    stack = replace(PRODUCTION, database_class="db.m7g.16xlarge")
    result = run(lambda _: per_second, 3 * 3600, Circumstances(session_seconds=session), stack)
    assert changes(result, since=7200) == 0
    for name in ("submission", "submissions"):
        assert per_second / 2 * session / result.samples[-1].tasks[name] <= 500


def test_after_a_peak_tasks_go_down_to_the_least() -> None:
    """SCALE-009: one at a time, with its cooldown, and none of them comes back."""

    def falling(at: float) -> float:
        return 60.0 if at < 3600 else 1.0

    result = run(falling, 3 * 3600, Circumstances(delivery_seconds=20.0, session_seconds=60.0))
    counts = [each.tasks["worker"] for each in result.samples]
    assert max(counts) == 10
    down = counts[90:]
    assert down == sorted(down, reverse=True)
    assert result.samples[-1].tasks == {"submission": 2, "submissions": 2, "worker": 1}


def test_421_above_the_one_depth_until_below_the_other() -> None:
    """REQ-INFRA-SCALE-007."""
    stack = replace(PRODUCTION, services={**PRODUCTION.services})
    stack.services["worker"] = replace(PRODUCTION.services["worker"], max_tasks=1)
    result = run(lambda _: 5000.0, 1800, stack=stack)
    assert PRODUCTION.ready_depth_high <= result.most_backlog < PRODUCTION.ready_depth_high + 5000
    assert result.refused > 0
    lowest = min(sample.backlog for sample in result.samples[10:])
    assert lowest > PRODUCTION.ready_depth_low - 10_000


def test_never_more_than_the_database_bears() -> None:
    """All the internet's mail on two vCPUs: most of it is refused, and the rest gets through."""
    result = run(profile("steady", 10_000_000 / 60))
    database = PRICES.database(PRODUCTION.database_class).vcpu * 0.9
    assert result.delivered / 3600 <= database / COSTS.postgres_deliver
    assert result.accepted / 3600 <= database / COSTS.postgres_accept
    assert result.refused_share > 0.9
    assert result.most_tasks["worker"] == PRODUCTION.services["worker"].max_tasks


def test_scale_in_drops_no_session_of_a_protected_task() -> None:
    """REQ-INFRA-SCALE-002, REQ-INFRA-SCALE-010: nor of one whose sessions are shorter than its drain."""

    def falling(at: float) -> float:
        return 1000.0 if at < 1800 else 10.0

    def dropped(session: float, *, protected: bool) -> float:
        around = Circumstances(session_seconds=session, protected=protected)
        result = run(falling, 3 * 3600, around, costs=FREE)
        assert result.samples[-1].tasks["submission"] < max(s.tasks["submission"] for s in result.samples)
        return result.dropped_sessions

    assert dropped(20.0, protected=False) == 0, "300 s and 120 s are enough"
    assert dropped(900.0, protected=False) > 0
    assert dropped(900.0, protected=True) == 0


def test_who_is_told_to_come_again_comes_again() -> None:
    patient = run(profile("spike", 10_000 / 60), around=Circumstances(retry_seconds=60.0))
    gone = run(profile("spike", 10_000 / 60))
    assert patient.delivered > gone.delivered
    assert patient.delivered == pytest.approx(10_000 / 60 * (3600 + 9 * 900), rel=1e-6), (
        "nobody is turned away for good"
    )


def test_more_tasks_cost_more(prices: Prices) -> None:
    few, many = run(profile("steady", 100.0)), run(profile("steady", 5000.0))
    assert many.dollars > few.dollars
    standing = prices.standing(PRODUCTION)
    tasks = 4 * prices.task(PRODUCTION.services["submission"]) + prices.task(PRODUCTION.services["worker"])
    assert few.dollars == pytest.approx(standing + tasks)
