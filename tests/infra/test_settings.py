"""terraform/stack.yaml: what the numbers must be to each other, and how mistakes in it are told."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from smtp_proxy.config import Settings
from smtp_proxy_infra import settings
from smtp_proxy_infra.cloudwatch_settings import (
    AlarmSettings,
    BudgetSettings,
    Chart,
    alarms_of,
    charts_of,
    require_addresses,
)
from smtp_proxy_infra.ecs_settings import (
    SERVICES,
    EcsSettings,
    PressureSettings,
    ScalingSettings,
    ServiceSettings,
    services_of,
)
from smtp_proxy_infra.rds import RdsSettings

ENVIRONMENTS = ("dev", "staging", "production")
# GiB of the classes that are used. RDS reserves no more connections than LEAST(memory / 9531392, 5000).
MEMORY = {"db.t4g.medium": 4, "db.t4g.large": 8}
STACK: dict[str, Any] = yaml.safe_load(settings.STACK.read_text())


def edited(tmp_path: Path, environments: dict[str, Any]) -> Path:
    file = tmp_path / "stack.yaml"
    file.write_text(yaml.safe_dump({"defaults": STACK["defaults"], "environments": environments}))
    return file


def test_an_environment_lies_over_the_defaults_one_level_deep(tmp_path: Path) -> None:
    file = edited(tmp_path, {"dev": {"vpc": {"public_cidrs": {"a": "10.0.0.0/24"}}}, "empty": None})
    of = settings.load("dev", file)
    assert of["vpc"]["public_cidrs"] == {"a": "10.0.0.0/24"}
    assert of["vpc"]["cidr"] == STACK["defaults"]["vpc"]["cidr"]
    assert settings.load("empty", file) == STACK["defaults"]


@pytest.mark.parametrize(
    ("environments", "said"),
    [
        ({"dev": {"rsd": {}}}, "environments.dev.rsd is no section"),
        ({"dev": {"rds": {"multiaz": True}}}, "environments.dev.rds.multiaz is not in defaults.rds"),
        ({"prod": {}}, "environment 'dev' is none of prod"),
    ],
)
def test_a_misspelling_is_refused(environments: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(settings.BadSettings, match=said):
        settings.load("dev", edited(tmp_path, environments))


@pytest.mark.parametrize("service", ["api", "dashboard"])
def test_a_web_service_without_its_load_balancer_is_refused(service: str, tmp_path: Path) -> None:
    """Terraform's twin is in test_terraform.py."""
    with pytest.raises(settings.BadSettings, match=r"need alb\.enabled"):
        settings.load("dev", edited(tmp_path, {"dev": {service: {"enabled": True}}}))
    switched = {"dev": {service: {"enabled": True}, "alb": {"enabled": True}}}
    assert settings.load("dev", edited(tmp_path, switched))[service]["enabled"]


@pytest.mark.parametrize("said", [True, "true", None])
def test_a_read_replica_is_refused_before_rds_does(said: object, tmp_path: Path) -> None:
    """RDS makes none of a primary whose password it manages; Terraform's twin is in terraform/tests."""
    with pytest.raises(settings.BadSettings, match=r"rds\.replica must be false in dev: .*manage_master_user_password"):
        settings.load("dev", edited(tmp_path, {"dev": {"rds": {"replica": said}}}))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_database_can_hold_the_connections(environment: str) -> None:
    """REQ-INFRA-SCALE-003: the budget is what the class has memory for."""
    rds = settings.load(environment)["rds"]
    assert rds["max_connections"] <= min(MEMORY[rds["instance_class"]] * 1024**3 // 9531392, 5000)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_performance_insights_keep_what_is_free(environment: str) -> None:
    """RDS may refuse more, now that Database Insights takes their place; Terraform's twin is in terraform/tests."""
    rds = settings.load(environment)["rds"]
    assert RdsSettings(**rds).performance_insights_retention_days == 7
    with pytest.raises(settings.BadSettings, match=r"rds\.performance_insights_retention_days must be 7"):
        RdsSettings(**(rds | {"performance_insights_retention_days": 731}))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_networks_lie_apart_within_the_vpc(environment: str) -> None:
    vpc = settings.load(environment)["vpc"]
    whole = ipaddress.ip_network(vpc["cidr"])
    networks = [
        ipaddress.ip_network(cidr)
        for tier in ("public", "private", "database")
        for cidr in vpc[f"{tier}_cidrs"].values()
    ]
    assert len(networks) == 9
    assert all(network.subnet_of(whole) for network in networks)
    assert not [(a, b) for i, a in enumerate(networks) for b in networks[i + 1 :] if a.overlaps(b)]


def test_production_is_guarded() -> None:
    of = settings.load("production")
    assert of["rds"]["deletion_protection"]
    assert not of["rds"]["skip_final_snapshot"]
    assert of["rds"]["multi_az"]
    assert len(of["vpc"]["nat_zones"]) == 3


def test_every_rule_has_its_other_end() -> None:
    """Where both ends are groups of ours, one rule lets out what another lets in; each gives its reason."""
    rules = list(STACK["defaults"]["security"]["rules"].values())
    ours = [rule for rule in rules if rule["peer"] not in ("world", "s3")]
    out = {(rule["group"], rule["peer"], rule["port"]) for rule in ours if rule["direction"] == "egress"}
    into = {(rule["peer"], rule["group"], rule["port"]) for rule in ours if rule["direction"] == "ingress"}
    assert out == into
    assert all(len(rule["why"]) > 10 for rule in rules)


def test_what_the_world_may_reach() -> None:
    rules = STACK["defaults"]["security"]["rules"].values()
    open_ports = {(r["group"], r["port"]) for r in rules if r["direction"] == "ingress" and r["peer"] == "world"}
    assert open_ports == {
        ("nlb", "submission_public"),
        ("nlb", "submissions_public"),
        ("nlb", "http"),
        ("alb", "https"),
        ("alb", "http"),
    }


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize(("section", "daily"), [("rds", "backup_window"), ("elasticache", "snapshot_window")])
def test_windows_lie_apart(section: str, daily: str, environment: str) -> None:
    """AWS refuses a maintenance window that touches the daily one, at apply and not before."""
    of = settings.load(environment)[section]
    begin, end = of[daily].split("-")
    from_day, to_day = of["maintenance_window"].split("-")
    assert begin < end, "past midnight: compare by hand"
    assert to_day[4:] < begin or end < from_day[4:]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_budget_of_connections_is_what_all_tasks_may_take(environment: str) -> None:
    """REQ-INFRA-SCALE-003: at the maximum each task has its pool and two connections past it; 90 are for people.

    Also while the largest service is deployed: blue/green has its old and its new tasks as long as the old ones stay,
    and a rolling one deployment_maximum_percent of them. Also of services that are switched off yet.
    """
    of = settings.load(environment)
    # The dashboard asks the API alone.
    each = [of[name]["max_tasks"] * (of[name]["db_pool_size"] + 2) for name in SERVICES if name != "dashboard"]
    assert "db_pool_size" not in of["dashboard"]
    assert of["ecs"]["deployment_maximum_percent"] <= 200
    assert sum(each) + max(each) + 90 <= of["rds"]["max_connections"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_task_bears_the_sessions_that_it_takes(environment: str) -> None:
    """REQ-INFRA-SCALE-004: beyond smtp_max_connections it answers 421: above what it scales out at, within its memory.

    The formula is the runbook's ("Under attack: what limits what"): 300 MiB, the budget of mail, 60 KiB a session.
    """
    of = settings.load(environment)
    mail = Settings.model_fields["smtp_max_in_flight_bytes"].default / 2**20
    for name in ("submission", "submissions"):
        most = of[name]["smtp_max_connections"]
        assert of[name]["connections_per_task"] < most <= (of[name]["memory"] - 300 - mail) * 1024 / 60


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_services_are_what_fargate_takes(environment: str) -> None:
    of = settings.load(environment)
    assert set(services_of(of)) == {"submission", "submissions", "worker", "certs"}
    assert ScalingSettings(**of["scaling"]).prewarm == {}
    PressureSettings(**of["pressure"])
    EcsSettings(**of["ecs"])


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("submission", "memory", 768, "cpu 512 and memory 768"),
        ("worker", "min_tasks", 0, "min_tasks and max_tasks of `serve worker`"),
        ("worker", "max_tasks", 0, "min_tasks and max_tasks of `serve worker`"),
        ("scaling", "cpu_in_percent", 70, "scaling.cpu_in_percent must be below"),
        ("scaling", "in_target_share", 1.1, "scaling.in_target_share must be above 0 and at most 1"),
        ("scaling", "in_busy_percent", 101, "scaling.in_busy_percent must be above 0 and at most 100"),
        ("scaling", "predictive", True, "scaling.predictive must be false"),
        ("scaling", "metric_period_seconds", 20, "scaling.metric_period_seconds must be 60"),
        ("scaling", "prewarm", {"x": {"service": "worker", "cron": "45 7 * * *", "min_tasks": 2}}, "cron must be"),
        ("pressure", "ready_depth_low", 60_000, "pressure.ready_depth_low must not be above"),
        ("ecs", "container_insights", False, "ecs.container_insights must be true"),
        ("ecs", "stop_timeout_seconds", 300, "ecs.stop_timeout_seconds must be 115 to 120"),
        ("ecs", "health_check_timeout_seconds", 3, "ecs.health_check_timeout_seconds must be more than the 4 s"),
        ("ecs", "session_max_seconds", 0, "ecs.session_max_seconds must be more than 0"),
    ],
)
def test_numbers_that_ecs_does_not_take_are_refused(section: str, key: str, value: object, said: str) -> None:
    """Terraform's twin is in terraform/tests."""
    kinds: dict[str, Any] = {"scaling": ScalingSettings, "pressure": PressureSettings, "ecs": EcsSettings}
    with pytest.raises(settings.BadSettings, match=re.escape(said)):
        kinds.get(section, ServiceSettings)(**(STACK["defaults"][section] | {key: value}))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_what_is_watched(environment: str) -> None:
    of = settings.load(environment)
    assert len(alarms_of(of["alarms"])) > 20
    assert len(charts_of(of["charts"])) > 10
    assert BudgetSettings(**of["budget"]).monthly_limit_usd > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": "lambda"}, "source must be one of"),
        ({"metric": None}, "an alarm has metric, or metrics with an expression"),
        ({"metrics": {"a": "QueueDepth"}, "expression": "a"}, "an alarm has metric, or metrics with an expression"),
        ({"metric": None, "metrics": {"a": "QueueDepth"}}, "an alarm has metric, or metrics with an expression"),
        (
            {"source": "database", "metric": None, "metrics": {"a": "CPUUtilization"}, "expression": "a"},
            "which source application alone may have",
        ),
        ({"groups": "fewest"}, "groups must be most or down"),
        ({"groups": "down"}, "down is of source target-groups and its HealthyHostCount alone"),
        ({"breaching_minutes": 0}, "breaching_minutes must be a multiple of period_seconds, and no more than minutes"),
        ({"breaching_minutes": 6}, "breaching_minutes must be a multiple of period_seconds, and no more than minutes"),
        ({"below": 1}, "has above or below, and not both"),
        ({"above": None}, "has above or below, and not both"),
        ({"percent_of": "everything"}, "percent_of must be one of"),
        ({"period_seconds": 30}, "period_seconds must be whole minutes"),
        ({"minutes": 0}, "period_seconds must be whole minutes"),
        ({"minutes": 1441}, "1440 at most"),
        ({"minutes": 7, "period_seconds": 300}, "minutes a multiple of it"),
        ({"missing": "bad"}, "missing must be one of"),
        ({"why_missing": ""}, "why_missing says why"),
        ({"statistic": "p99"}, "statistic must be one of"),
    ],
)
def test_alarms_that_can_not_be_are_refused(change: dict[str, Any], said: str) -> None:
    """Terraform's twin is in terraform/tests/cloudwatch.tftest.hcl."""
    good = STACK["defaults"]["alarms"]["backlog-age"]
    AlarmSettings(**good)
    with pytest.raises(settings.BadSettings, match=re.escape(said)):
        AlarmSettings(**(good | change))


def test_a_chart_or_a_budget_that_can_not_be_is_refused() -> None:
    chart = STACK["defaults"]["charts"]["widgets"][0]
    with pytest.raises(settings.BadSettings, match="charts: source must be one of"):
        Chart(**(chart | {"source": "lambda"}))
    with pytest.raises(settings.BadSettings, match="budget: monthly_limit_usd"):
        BudgetSettings(**(STACK["defaults"]["budget"] | {"monthly_limit_usd": 0}))


@pytest.mark.parametrize(
    "addresses", [["operators"], ["a b@example.com"], 2 * ["a@example.com"], [f"{n}@example.com" for n in range(11)]]
)
def test_who_can_not_be_told_is_refused(addresses: list[str]) -> None:
    require_addresses(["operators@example.com", "on-call@example.com"])
    with pytest.raises(settings.BadSettings, match="alert_emails must be e-mail addresses"):
        require_addresses(addresses)
