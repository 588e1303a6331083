"""CodeDeploy, as production and every switch have it: blue/green of what has a port, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from fix_infra import SIDES, Side
from infra_graph.canonical import Resource

from smtp_proxy.deploy.check import CHECKS
from smtp_proxy.deploy.service import GROUPS, PLATFORM, SUBNETS
from smtp_proxy_infra import settings
from smtp_proxy_infra.codedeploy import CodeDeploySettings

# As in test_parity.py: the first test waits for what the fixture renders.
pytestmark = pytest.mark.timeout(600)

# What CodeDeploy may do to anything: AWS knows no resources for these, and all of them only read.
READS = {
    "cloudwatch:DescribeAlarms",
    "elasticloadbalancing:DescribeListeners",
    "elasticloadbalancing:DescribeRules",
    "elasticloadbalancing:DescribeTargetGroups",
}


def of_kind(resources: list[Resource], kind: str) -> dict[str, Mapping[str, Any]]:
    return {each.role: each.arguments for each in resources if each.kind == kind}


def listed(value: Any) -> list[Any]:
    """A list of one is the same as its one in the canonical form."""
    return value if isinstance(value, list) else [value]


@SIDES
@pytest.mark.parametrize("environment", ["production", "switched"])
def test_every_service_with_a_port_is_deployed_blue_green(
    side: str, environment: str, production: Side, switched: Side
) -> None:
    """REQ-INFRA-ECS-003, REQ-INFRA-ECS-005: each has a deployment group with its own listener and its two groups."""
    resources = {"production": production, "switched": switched}[environment](side)
    groups = of_kind(resources, "aws_codedeploy_deployment_group")
    names = {each["name"] for each in of_kind(resources, "aws_lb_target_group").values()}
    web = {"api", "dashboard"} if environment == "switched" else set()
    assert {each["deployment_group_name"] for each in groups.values()} == {"submission", "submissions"} | web
    for each in groups.values():
        service = each["deployment_group_name"]
        assert each["deployment_style"] == {
            "deployment_type": "BLUE_GREEN",
            "deployment_option": "WITH_TRAFFIC_CONTROL",
        }
        assert each["ecs_service"]["service_name"] == service
        pair = each["load_balancer_info"]["target_group_pair_info"]
        listener = "alb-https" if service in web else f"nlb-smtp-{service}"
        assert f"<aws_lb_listener|{listener}|arn>" in pair["prod_traffic_route"]["listener_arn"]
        blue, green = (group["name"] for group in pair["target_group"])
        assert {blue, green} <= names
        assert (blue.rpartition("-")[2], green.rpartition("-")[2]) == ("blue", "green")
        assert blue.removesuffix("blue") == green.removesuffix("green")
        # Behind a network load balancer CodeDeploy has no canary.
        assert ("Canary" in each["deployment_config_name"]) == (service in web)


@SIDES
def test_what_goes_wrong_is_taken_back(side: str, switched: Side) -> None:
    """REQ-INFRA-ECS-006: a failure, such as tasks that do not become healthy, and alarms lead back by themselves."""
    for each in of_kind(switched(side), "aws_codedeploy_deployment_group").values():
        assert each["auto_rollback_configuration"]["enabled"] == "true"
        assert {"DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM"} <= set(each["auto_rollback_configuration"]["event"])
        # While the old tasks are there, the traffic goes back to them at once.
        stay = each["blue_green_deployment_config"]["terminate_blue_instances_on_deployment_success"]
        assert stay["action"] == "TERMINATE"
        assert int(stay["termination_wait_time_in_minute"]) >= 5
        assert each["alarm_configuration"]["ignore_poll_alarm_failure"] == "false"


@SIDES
@pytest.mark.parametrize("environment", ["production", "switched"])
def test_alarms_of_a_service_take_its_deployment_back(
    side: str, environment: str, production: Side, switched: Side
) -> None:
    """REQ-INFRA-ECS-006: CodeDeploy and ECS watch those of the table with `rollback`, each that of its own service."""
    resources = {"production": production, "switched": switched}[environment](side)
    there = {each["name"] for each in of_kind(resources, "aws_cloudwatch_metric_alarm").values()}
    watched = {
        each["deployment_group_name"]: each["alarm_configuration"]
        for each in of_kind(resources, "aws_codedeploy_deployment_group").values()
    } | {
        each["name"]: each["alarm"]
        for each in of_kind(resources, "aws_ecs_service").values()
        if each["deployment_controller"]["type"] == "ECS"
    }
    assert watched.keys() >= {"submission", "submissions", "worker", "certs"}
    rows = {key for key, row in settings.load("production")["alarms"].items() if row.get("rollback")}
    for service, each in watched.items():
        names = set(listed(each.get("alarm", each.get("alarm_name"))))
        assert each.get("enabled", each.get("enable")) == "true"
        assert names <= there
        assert len(names) in range(3, 11), service
        assert {name.partition(f"-{service}-")[2] for name in names} <= rows
        assert any(name.endswith(f"-{service}-memory") for name in names)


@SIDES
def test_an_apply_changes_nothing_that_ecs_leaves_to_codedeploy(side: str, switched: Side) -> None:
    """REQ-INFRA-ECS-005: ECS refuses it (UpdateService). What is wanted of the network and the platform the tags say.

    So that `smtp-proxy deploy` brings it: with the names that it asks for, each value of the service itself.
    """
    found = [each for each in switched(side) if each.kind == "aws_ecs_service"]
    for each in found:
        of = each.arguments
        if of["deployment_controller"]["type"] == "ECS":
            assert each.ignored == {"desired_count", "task_definition"}, each.role
            assert "tag" not in of
            continue
        assert each.ignored == {
            "desired_count",
            "task_definition",
            "load_balancer",
            "platform_version",
            "network_configuration",
        }, each.role
        network = of["network_configuration"]
        assert of["tag"].keys() == {PLATFORM, SUBNETS, GROUPS}
        assert of["tag"][PLATFORM] == of["platform_version"]
        assert sorted(of["tag"][SUBNETS].split(" ")) == network["subnet"]
        assert of["tag"][GROUPS] == network["security_group"]
    assert len(found) == 6


@SIDES
def test_codedeploy_may_touch_nothing_else(side: str, switched: Side) -> None:
    resources = switched(side)
    (policy,) = (each for role, each in of_kind(resources, "aws_iam_role_policy").items() if role == "codedeploy-main")
    passed = next(each for each in policy["policy"]["Statement"] if each["Action"] == "iam:PassRole")
    assert passed["Condition"] == {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    assert {role.rpartition("ecs-")[2] for role in passed["Resource"]} == {
        "execution|arn>",
        *(f"task-{service}|arn>" for service in ("submission", "submissions", "api", "dashboard")),
    }
    # A task set that is being made has no ARN: not the resource says what it is made in.
    (sets,) = (each for each in policy["policy"]["Statement"] if "ecs:CreateTaskSet" in each["Action"])
    assert (set(sets["Action"]), sets["Resource"]) == ({"ecs:CreateTaskSet", "ecs:DeleteTaskSet"}, "*")
    of = sets["Condition"]["ArnEquals"]
    assert of["ecs:cluster"] == "arn:aws:ecs:us-east-1:123456789012:cluster/smtp-proxy-dev"
    assert set(of["ecs:service"]) == {
        f"arn:aws:ecs:us-east-1:123456789012:service/smtp-proxy-dev/{service}"
        for service in ("submission", "submissions", "api", "dashboard")
    }
    for statement in policy["policy"]["Statement"]:
        actions = set(listed(statement["Action"]))
        assert not [action for action in actions if "*" in action]
        if statement == sets:
            continue
        for target in listed(statement["Resource"]):
            if target == "*":
                assert actions == READS
            elif actions == {"iam:PassRole"}:
                assert "<aws_iam_role|ecs-" in target
            else:
                assert "*" not in target.removesuffix("/*"), target
                assert not target.endswith("/*") or "<aws_lb_listener|" in target


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nlb_config": "CodeDeployDefault.ECSCanary10Percent5Minutes"}, "nlb_config must be"),
        ({"alb_config": "CodeDeployDefault.HalfAtATime"}, "alb_config must be"),
        ({"termination_wait_minutes": 0}, "termination_wait_minutes 1 to 2880"),
        ({"rollback_events": ["DEPLOYMENT_FAILURE"]}, "rollback_events must have"),
    ],
)
def test_what_terraform_refuses_pulumi_refuses(change: dict[str, Any], said: str) -> None:
    """Terraform's half is in terraform/tests/codedeploy.tftest.hcl."""
    CodeDeploySettings(**settings.load("production")["codedeploy"])
    with pytest.raises(settings.BadSettings, match=said):
        CodeDeploySettings(**settings.load("production")["codedeploy"] | change)


# What a check of doctor connects to: the peer and the port of a rule. The VPC's own DNS needs none.
NEEDS: Mapping[str, set[tuple[str, str]]] = {
    "settings": set(),
    "limits": set(),
    "postgres": {("database", "postgres")},
    "redis": {("cache", "redis")},
    "smarthost": {("world", "submission_public"), ("world", "submissions_public")},
    "ses": {("world", "https")},
}


@pytest.mark.parametrize("serves", CHECKS)
def test_what_is_checked_before_traffic_can_be_reached(serves: str) -> None:
    """`smtp-proxy deploy` asks doctor as a task of the service, in its security group."""
    rules = settings.load("production")["security"]["rules"].values()
    out = {(rule["peer"], rule["port"]) for rule in rules if rule["group"] == serves and rule["direction"] == "egress"}
    for name in CHECKS[serves]:
        assert NEEDS[name] <= out, name
