"""terraform/stack.yaml: what the numbers must be to each other, and how mistakes in it are told."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml

from smtp_proxy_infra import settings

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
