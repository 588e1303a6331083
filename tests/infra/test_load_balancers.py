"""The load balancers, as production has them: where the world comes in, who is asked for health, how tasks leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from infra_graph.canonical import Resource

from smtp_proxy.config import Settings
from smtp_proxy_infra import settings
from smtp_proxy_infra.nlb import NlbSettings

# As in test_parity.py: the first test waits for what the fixture renders.
pytestmark = pytest.mark.timeout(600)

ENVIRONMENTS = ("dev", "staging", "production")
FAILOVER_SECONDS = 120  # the longest that RDS names for a fail-over of a Multi-AZ instance
DRAINING_SECONDS = 120  # how long a network load balancer goes on sending connections to a target that was deregistered

Side = Callable[[str], list[Resource]]
SIDES = pytest.mark.parametrize("side", ["terraform", "pulumi"])


def of_kind(resources: list[Resource], kind: str) -> dict[str, Mapping[str, Any]]:
    return {each.role: each.arguments for each in resources if each.kind == kind}


@SIDES
def test_each_port_leads_to_its_service(side: str, production: Side) -> None:
    """587 and 465 are two services with a listener each, since CodeDeploy takes one; 80 is HTTP-01."""
    listeners = of_kind(production(side), "aws_lb_listener")
    leads = {
        (each["port"], each["protocol"], each["default_action"]["target_group_arn"].rpartition("<")[2])
        for role, each in listeners.items()
        if role.startswith("nlb-")
    }
    assert leads == {
        ("587", "TCP", "aws_lb_target_group|nlb-smtp-submission-blue|arn>"),
        ("465", "TCP", "aws_lb_target_group|nlb-smtp-submissions-blue|arn>"),
        ("80", "TCP", "aws_lb_target_group|nlb-acme|arn>"),
    }
    groups = of_kind(production(side), "aws_lb_target_group")
    assert {role: groups[role]["port"] for role in groups if role.startswith("nlb-")} == {
        "nlb-smtp-submission-blue": "2587",
        "nlb-smtp-submission-green": "2587",
        "nlb-smtp-submissions-blue": "2465",
        "nlb-smtp-submissions-green": "2465",
        "nlb-acme": "8089",
    }


@SIDES
def test_no_group_is_without_a_health_check(side: str, production: Side) -> None:
    """REQ-INFRA-ECS-012: nothing takes traffic unasked. Health is a real answer over HTTP, not an open port."""
    groups = of_kind(production(side), "aws_lb_target_group")
    assert len(groups) >= 5
    for role, group in groups.items():
        check = group["health_check"]
        assert (check["protocol"], check["matcher"]) == ("HTTP", "200"), role
        assert check["path"] in ("/readyz", "/healthz"), role


@SIDES
def test_a_task_that_leaves_keeps_its_sessions(side: str, production: Side) -> None:
    """REQ-INFRA-SCALE-002: it is told to stop after the load balancer has stopped sending, and nothing is cut."""
    groups = of_kind(production(side), "aws_lb_target_group")
    smtp = {role: group for role, group in groups.items() if role.startswith("nlb-smtp-")}
    assert len(smtp) == 4
    for role, group in smtp.items():
        assert int(group["deregistration_delay"]) >= DRAINING_SECONDS, role
        assert group["connection_termination"] == "false", role
        assert group["target_health_state"] == {"enable_unhealthy_connection_termination": "false"}, role


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_server_ends_a_session_before_the_load_balancer_does(environment: str) -> None:
    idle = settings.load(environment)["nlb"]["idle_timeout_seconds"]
    waits = {name: Settings.model_fields[name].default for name in Settings.model_fields}
    assert idle > max(waits["smtp_command_timeout_seconds"], waits["smtp_data_timeout_seconds"])
    assert idle > 600  # RFC 5321 4.5.3.2.6: what a client waits for the last reply


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_fail_over_of_the_database_replaces_no_task(environment: str) -> None:
    nlb = settings.load(environment)["nlb"]
    assert nlb["health_interval_seconds"] * nlb["unhealthy_threshold"] > FAILOVER_SECONDS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"idle_timeout_seconds": 350}, "idle_timeout_seconds must be 600"),
        ({"preserve_client_ip": True}, "preserve_client_ip must be false"),
        ({"deregistration_delay_seconds": 60}, "deregistration_delay_seconds must be 120"),
        ({"health_timeout_seconds": 15}, "health_timeout_seconds must be less"),
        ({"unhealthy_threshold": 11}, "unhealthy_threshold must be 2 to 10"),
    ],
)
def test_what_terraform_refuses_pulumi_refuses(change: dict[str, Any], said: str) -> None:
    """Terraform's half is in terraform/tests/nlb.tftest.hcl."""
    NlbSettings(**settings.load("production")["nlb"])
    with pytest.raises(settings.BadSettings, match=said):
        NlbSettings(**settings.load("production")["nlb"] | change)
