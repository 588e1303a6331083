"""`plan`: what a load needs, and what can not be had."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.cli import planning as cli
from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError
from smtp_proxy.planning.balancers import Carried, alb_units, nlb_units
from smtp_proxy.planning.capacity import FARGATE_QUOTA, FARGATE_QUOTA_NEW, Load, plan, spec_formulas
from smtp_proxy.planning.message_costs import MessageCosts, read_costs
from smtp_proxy.planning.prices import Prices, read_prices
from smtp_proxy.planning.stack import Stack, load

PRODUCTION, PRICES = load(None, "production"), read_prices()
FLOOR = Load(peak=10_000 / 60, average=50.0)


def test_the_floor_fits_what_the_stack_has(production: Stack, costs: MessageCosts, prices: Prices) -> None:
    made = plan(FLOOR, production, costs, prices)
    assert (made.problems, made.warnings) == ([], [])
    assert made.tasks == {"submission": 2, "submissions": 2, "worker": 1, "certs": 1}
    assert made.total == pytest.approx(sum(made.dollars_per_month.values()))


def test_connections_beyond_what_a_class_bears_are_refused(costs: MessageCosts, prices: Prices) -> None:
    """The specification's own: 1,200 on a class of 4 GiB (REQ-INFRA-SCALE-003)."""
    wrong = load(None, "production", ["rds.instance_class=db.t4g.medium", "rds.max_connections=1200"])
    made = plan(FLOOR, wrong, costs, prices)
    (problem,) = made.problems
    assert "1,200" in problem
    assert "4 GiB bears 450" in problem
    assert "RDS Proxy" in problem


def test_a_deployment_has_the_largest_service_twice(costs: MessageCosts, prices: Prices) -> None:
    """20 and 20 tasks that accept, 10 workers and the issuer, at 8 and 2 each; and 20 green ones beside the blue."""
    made = plan(FLOOR, PRODUCTION, costs, prices)
    assert made.database_connections == (20 + 20 + 10 + 1 + 20) * 10 + 90
    tight = load(None, "production", ["rds.max_connections=700"])
    (warning,) = plan(FLOOR, tight, costs, prices).warnings
    assert warning == "rds.max_connections is 700, and tasks may want 800 while one service is deployed"
    pooled = load(None, "production", ["submission.db_pool_size=4", "submissions.db_pool_size=4"])
    assert plan(FLOOR, pooled, costs, prices).database_connections == (20 + 20 + 20) * 6 + 11 * 10 + 90


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            ["submission.memory=512"],
            r"submission\.smtp_max_connections is 2,500, and a task of 0\.5 GiB bears 0: lower it",
        ),
        (["submissions.smtp_max_connections=9000"], r"is 9,000, and a task of 1 GiB bears 7,987: lower it"),
        (["submission.smtp_max_connections=400"], r"connections_per_task is 500, .* 400: it would never scale out"),
    ],
)
def test_sessions_that_a_task_can_not_have_are_refused(
    changes: list[str], said: str, costs: MessageCosts, prices: Prices
) -> None:
    (problem,) = plan(FLOOR, load(None, "production", changes), costs, prices).problems
    assert re.search(said, problem)


def test_storage_beyond_what_the_stack_lets_rds_grow_to_is_refused(costs: MessageCosts, prices: Prices) -> None:
    """Production's own floor, kept for RETENTION_DAYS, is 1,174 GiB."""
    made = plan(FLOOR, load(None, "production"), costs, prices)
    assert made.storage_gib == pytest.approx(1174, abs=1)
    (problem,) = plan(FLOOR, load(None, "production", ["rds.max_allocated_storage=500"]), costs, prices).problems
    assert problem.startswith("1,174 GiB of mail are kept for 30 days, and rds.max_allocated_storage is 500: raise it")
    assert "RETENTION_DAYS" in problem
    tight = plan(FLOOR, load(None, "production", ["rds.max_allocated_storage=1200"]), costs, prices)
    assert tight.problems == []
    assert tight.warnings == [
        "rds.max_allocated_storage is 1,200 GiB, of which 1,174 are needed: less than a tenth is left"
    ]
    (endless,) = plan(replace(FLOOR, retention_days=3650), PRODUCTION, costs, prices).problems
    assert "no volume of RDS has more than 65,536" in endless


def test_storage_that_is_there_costs_though_it_is_empty(costs: MessageCosts, prices: Prices) -> None:
    short = replace(FLOOR, retention_days=0.1)
    made = plan(short, PRODUCTION, costs, prices)
    assert made.dollars_per_month["database storage"] == pytest.approx(2 * 100 * 0.115)


def test_retention_is_what_is_reckoned_with() -> None:
    """`plan` reckons with as many days as the application keeps mail for."""
    assert FLOOR.retention_days == Settings.model_fields["retention_days"].default
    assert inspect.signature(cli.plan).parameters["retention_days"].default == FLOOR.retention_days


@pytest.mark.parametrize(
    ("peak", "size", "changes", "said"),
    [
        (200.0, 64.0, [], None),
        (900.0, 8.0, [], "3,015 come: raise it to 400"),
        (
            800.0,
            64.0,
            ["rds.allocated_storage=399"],
            "of which gp3 writes 125 MiB/s and 3,000 times a second, where up to",
        ),
        (800.0, 64.0, ["rds.allocated_storage=400"], None),
        (5000.0, 8.0, ["rds.allocated_storage=400"], "16,750 come, and more must be provisioned"),
    ],
)
def test_writes_beyond_what_the_volume_begins_with(
    peak: float, size: float, changes: list[str], said: str | None, prices: Prices
) -> None:
    """gp3 of RDS: 125 MiB/s and 3,000 writes a second below 400 GiB, 500 and 12,000 from there on."""
    of = load(None, "production", [*changes, "rds.max_allocated_storage=9000"])
    warnings = plan(Load(peak, 1.0, size), of, read_costs(size), prices).warnings
    found = [each for each in warnings if each.startswith("rds.allocated_storage")]
    assert (len(found) == 1 and said in found[0]) if said else found == []


def test_every_endpoint_and_load_balancer_costs(costs: MessageCosts, prices: Prices) -> None:
    """Of the same list as the stack makes them; what is not counted is named."""
    of = load(None, "production")
    made = plan(FLOOR, of, costs, prices).dollars_per_month
    assert of.interface_endpoints == 5 * 3
    assert made["endpoints"] == pytest.approx(730 * 15 * 0.01)
    fewer = load(None, "production", ["vpc.endpoints=[logs]"])
    assert plan(FLOOR, fewer, costs, prices).dollars_per_month["endpoints"] == pytest.approx(730 * 3 * 0.01)
    assert prices.standing(of) - prices.standing(fewer) == pytest.approx(12 * 0.01)
    web = load(None, "production", ["alb.enabled=true"])
    more = plan(FLOOR, web, costs, prices).dollars_per_month["load balancers"] - made["load balancers"]
    assert more == pytest.approx(730 * prices.table["load_balancer_hour"]["alb"])
    assert prices.standing(web) - prices.standing(of) == pytest.approx(prices.table["load_balancer_hour"]["alb"])
    assert "KMS keys" in prices.left_out


# AWS's own example of an application load balancer: a new connection a second for 2 minutes, 5 requests a second,
# 300 KB/s and 60 rules are 0.04, 0.04, 1.08 and 0.25 units, so 1.08. The others: one kind the greatest in turn.
@pytest.mark.parametrize(
    ("carried", "rules", "units"),
    [
        (Carried(1, 120, 1.08, 5), 60, 1.08),
        (Carried(100, 2, 0.5, 100), 2, 4.0),
        (Carried(10, 900, 0.5, 10), 2, 3.0),
        (Carried(1, 1, 0.5, 80), 60, 4.0),
        (Carried(1, 1, 0.1, 10_000), 10, 0.1),
        (Carried(0, 1, 0, 0), 60, 0.0),
    ],
)
def test_units_of_an_application_load_balancer(carried: Carried, rules: int, units: float) -> None:
    assert alb_units(carried, rules) == pytest.approx(units)


@pytest.mark.parametrize(
    ("carried", "units"), [(Carried(1_600, 2, 0.5), 2.0), (Carried(100, 3_000, 1), 3.0), (Carried(1, 2, 2.5), 2.5)]
)
def test_units_of_a_network_load_balancer(carried: Carried, units: float) -> None:
    assert nlb_units(carried) == pytest.approx(units)


def test_what_the_web_costs_by_hand(costs: MessageCosts, prices: Prices) -> None:
    """100 requests a second of 20 KiB are 7.3728 GB an hour, at 0.8 cents 43.06 $ in 730 hours."""
    of = load(None, "production", ["alb.enabled=true", "api.enabled=true"])
    quiet = plan(FLOOR, of, costs, prices)
    made = plan(replace(FLOOR, web_peak=150, web_average=100, web_kib=20, web_seconds=2), of, costs, prices)
    more = made.dollars_per_month["load balancers"] - quiet.dollars_per_month["load balancers"]
    assert more == pytest.approx(43.057152)
    assert (quiet.tasks["api"], made.tasks["api"]) == (2, 9)
    assert plan(replace(FLOOR, web_average=100), PRODUCTION, costs, prices).total == pytest.approx(
        plan(FLOOR, PRODUCTION, costs, prices).total
    ), "there is no such load balancer"
    assert not any("ALB" in each for each in prices.left_out)


def test_the_web_is_reckoned_with_what_its_fewest_tasks_bear() -> None:
    both = ["alb.enabled=true", "api.enabled=true"]
    assert load(None, "production", both).web_per_minute == 2 * 1000
    assert load(None, "production", both[:1]).web_per_minute == PRODUCTION.web_per_minute == 0
    with pytest.raises(ConfigurationError, match="requests_per_task: 0 is not more than 0"):
        load(None, "production", ["api.requests_per_task=0"])


def test_more_than_any_database_bears_is_refused_with_the_reason(costs: MessageCosts, prices: Prices) -> None:
    made = plan(Load(peak=100_000_000 / 60, average=500_000.0), PRODUCTION, costs, prices)
    assert made.database == ""
    assert any("vCPU, where the largest (db.m7g.16xlarge) has 64" in problem for problem in made.problems)
    assert any("worker needs" in warning and "max_tasks is 10" in warning for warning in made.warnings)


@given(st.floats(1, 2000), st.floats(1.01, 20), st.floats(1, 200), st.floats(1, 10))
def test_a_larger_load_never_needs_less(peak: float, more: float, size: float, recipients: float) -> None:
    costs = read_costs(size)
    small = plan(Load(peak, peak / 3, size, recipients), PRODUCTION, costs, PRICES)
    large = plan(Load(peak * more, peak * more / 3, size, recipients), PRODUCTION, costs, PRICES)
    assert all(large.tasks[name] >= tasks for name, tasks in small.tasks.items())
    assert large.storage_gib >= small.storage_gib
    if large.database and small.database:
        assert large.total >= small.total


def test_the_formulas_of_the_specification() -> None:
    """10,000 a minute for 2 s over 2,500 connections are 0.13 tasks, not the 1.33 that it says."""
    said = spec_formulas(FLOOR)
    assert next(value for name, value in said.items() if "SMTP tasks" in name).startswith("0.13")


def test_costs_of_a_recorded_result(tmp_path: Path) -> None:
    spent = {"server": 0.1, "postgres": 0.4, "valkey": 0.05, "worker": 0.5, "total": 1.05}
    file = tmp_path / "e2e.json"
    file.write_text(json.dumps({"rows": {"ours delivering fast": {"cpu_seconds_per_1000": spent}}}))
    costs = read_costs(results=file)
    assert (costs.server, costs.worker, costs.valkey) == pytest.approx((0.1e-3, 0.5e-3, 0.05e-3))
    assert costs.postgres_accept + costs.postgres_deliver == pytest.approx(0.4e-3)
    faster = read_costs(results=file, cpu_factor=2.0)
    assert faster.server == pytest.approx(costs.server / 2)
    file.write_text("{}")
    with pytest.raises(ConfigurationError, match=r"--results: .* is no result of `make bench-e2e`"):
        read_costs(results=file)


def test_what_was_never_measured_is_said(costs: MessageCosts, prices: Prices) -> None:
    """10 million a minute are 80 times what the benchmarks did on their two cores."""
    made = plan(Load(peak=10_000_000 / 60, average=50_000.0), PRODUCTION, costs, prices)
    assert any("beyond what was measured (2,010/s" in warning for warning in made.warnings)


def test_what_no_volume_writes_is_refused(prices: Prices) -> None:
    made = plan(Load(peak=20_000, average=5_000.0, size_kib=256), PRODUCTION, read_costs(256), prices)
    assert any("MiB/s" in problem and "gp3" in problem for problem in made.problems)
    # 700 MiB/s: what one volume of 400 GiB and more has not got, and 150 what a smaller one has not.
    much, some = (Load(peak, 1.0, 256.0, retention_days=1.0) for peak in (1260.0, 270.0))
    (problem,) = plan(much, PRODUCTION, read_costs(256), prices).problems
    assert problem.startswith(
        "698 MiB/s would be written, and gp3 of RDS takes 500 at rds.max_allocated_storage, 2,000"
    )
    small = load(None, "production", ["rds.max_allocated_storage=399"])
    assert plan(some, PRODUCTION, read_costs(256), prices).problems == []
    (problem,) = plan(some, small, read_costs(256), prices).problems
    assert "takes 125 at rds.max_allocated_storage, 399 GiB (500 from 400 GiB on)" in problem


def test_the_vcpus_that_fargate_must_grant(costs: MessageCosts, prices: Prices) -> None:
    """20, 20 and 10 tasks of half a vCPU and the issuer's quarter; and 20 green ones beside the blue."""
    made = plan(FLOOR, PRODUCTION, costs, prices)
    assert (made.fargate_vcpu, made.fargate_vcpu_deploying) == (25.25, 35.25)
    more = plan(FLOOR, load(None, "production", ["worker.cpu=4096", "worker.memory=8192"]), costs, prices)
    assert (more.fargate_vcpu, more.fargate_vcpu_deploying) == (20 + 40 + 0.25, 20 + 40 + 0.25 + 40)
    said = (Path(__file__).resolve().parents[3] / "docs/DEPLOY.md").read_text()
    assert f"have {made.fargate_vcpu}, and {made.fargate_vcpu_deploying} while the largest one is deployed" in said
    assert f"`{FARGATE_QUOTA}`" in said
    least = [each.min_tasks * each.vcpu for each in PRODUCTION.services.values()]
    assert sum(least) + max(least) <= FARGATE_QUOTA_NEW, "enough for production's fewest tasks and a deployment"


def test_a_burstable_class_bears_its_baseline_for_ever(costs: MessageCosts, prices: Prices) -> None:
    """db.t4g.large: two vCPUs for a while, six tenths of one on average."""
    seconds = costs.postgres_accept + costs.postgres_deliver
    bursts = plan(Load(0.65 / seconds, 0.5 / seconds), PRODUCTION, costs, prices)
    assert bursts.database == "db.t4g.large"
    assert not any("burstable" in each for each in bursts.warnings)
    steady = plan(Load(0.65 / seconds, 0.65 / seconds), PRODUCTION, costs, prices)
    assert steady.database == "db.m7g.large"
    assert "rds.instance_class db.t4g.large is burstable: 0.6 vCPU for ever, and 0.7 are needed on average" in str(
        steady.warnings
    )
    assert any("CPU credits" in each for each in prices.left_out)


def test_a_cache_of_redis_costs_more_than_one_of_valkey(costs: MessageCosts, prices: Prices) -> None:
    redis = load(None, "production", ["elasticache.engine=redis"])
    dear, cheap = (plan(FLOOR, of, costs, prices).dollars_per_month["cache"] for of in (redis, PRODUCTION))
    assert dear == pytest.approx(1.25 * cheap)
    assert prices.standing(redis) > prices.standing(PRODUCTION)


def test_large_messages_cost_more() -> None:
    small, large = read_costs(1.0), read_costs(64.0)
    assert large.server > small.server
    assert large.postgres_accept > small.postgres_accept
    assert large.worker > small.worker


def test_the_recorded_results_can_be_read() -> None:
    """The newest that measured the rate: a run of some parts alone has no such row."""
    results = sorted((Path(__file__).resolve().parents[3] / "benches/results").glob("*-e2e.json"))
    whole = [file for file in results if "ours delivering fast" in json.loads(file.read_text())["rows"]]
    assert whole
    assert read_costs(results=whole[-1]).worker > 0


def test_a_class_without_a_price_is_named(costs: MessageCosts, prices: Prices) -> None:
    with pytest.raises(ConfigurationError, match=r"no db\.x\.large; it has db\.t4g\.medium"):
        plan(FLOOR, replace(PRODUCTION, database_class="db.x.large"), costs, prices)
    with pytest.raises(ConfigurationError, match=r"elasticache\.node_type: the price file has no cache\.x"):
        plan(FLOOR, replace(PRODUCTION, cache_class="cache.x"), costs, prices)


def test_prices_have_a_date(prices: Prices) -> None:
    assert prices.as_of[:2] == "20"
    assert prices.region == "us-east-1"
