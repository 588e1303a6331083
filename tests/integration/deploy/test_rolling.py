"""`smtp-proxy deploy` of a service that ECS rolls by itself, and which definition it begins with."""

from __future__ import annotations

import pytest
from fix_deploy import CLUSTER, REPOSITORY, Stack, definitions

from smtp_proxy.deploy.service import find
from smtp_proxy.errors import DeployFailed

pytestmark = pytest.mark.integration


def test_rolling_passes_over_what_is_in_alarm_by_itself(stack: Stack) -> None:
    stack.build("worker", controller="ECS")
    stack.deploy("worker", ignore_alarms=True)
    assert any("ECS passes over alarms" in line for line in stack.said)
    assert stack.said[-1] == f"worker: {CLUSTER}-worker:2 is in service"


def test_of_two_services_at_a_time_it_is_said(stack: Stack) -> None:
    """Postgres has connections for the old and the new tasks of one service."""
    stack.build("submission", controller="CODE_DEPLOY")
    stack.build("worker", controller="ECS")
    stack.deploy("worker")
    assert not any("is being deployed still" in line for line in stack.said)
    green = stack.aws.ecs.describe_services(cluster=CLUSTER, services=["submission"])["services"][0]["taskSets"][0]
    wanted = ("taskDefinition", "launchType", "platformVersion", "networkConfiguration", "loadBalancers")
    stack.aws.ecs.create_task_set(cluster=CLUSTER, service="submission", **{key: green[key] for key in wanted})
    stack.deploy("worker", f"{REPOSITORY}:2")
    assert sum(line.startswith("submission: is being deployed still") for line in stack.said) == 1


def test_rolling(stack: Stack) -> None:
    stack.build("worker", controller="ECS")
    stack.deploy("worker")
    assert stack.service("worker").task_definition.endswith("-worker:2")
    assert len(stack.tasks) == 1  # the check
    assert stack.said[-1] == f"worker: {CLUSTER}-worker:2 is in service"


def test_what_the_circuit_breaker_takes_back_is_told(stack: Stack) -> None:
    stack.build("worker", controller="ECS")
    stack.rollout_state = "FAILED"
    with pytest.raises(DeployFailed, match="worker was taken back by ECS"):
        stack.deploy("worker")


def test_the_same_image_again_is_no_new_definition(stack: Stack) -> None:
    stack.build("worker", controller="ECS")
    stack.deploy("worker")
    stack.deploy("worker")
    assert len(definitions(stack, "worker")) == 2


def test_what_the_stack_changed_of_a_task_comes_along(stack: Stack) -> None:
    """The stack registers a definition and does not roll it out; a deployment begins with the newest."""
    stack.build("worker", controller="ECS")
    described = stack.aws.ecs.describe_task_definition(taskDefinition=f"{CLUSTER}-worker")["taskDefinition"]
    (container,) = described["containerDefinitions"]
    stack.aws.ecs.register_task_definition(
        family=described["family"],
        networkMode="awsvpc",
        containerDefinitions=[{**container, "environment": [{"name": "LOG_LEVEL", "value": "info"}]}],
    )
    stack.deploy("worker")
    assert definitions(stack, "worker")[-1]["containerDefinitions"][0]["environment"] == [
        {"name": "LOG_LEVEL", "value": "info"}
    ]


def test_what_ecs_itself_rolls_says_where_it_runs(stack: Stack) -> None:
    """An apply changes it, and tags that somebody gave say nothing."""
    stack.build("worker", controller="ECS")
    tags = [{"key": "DeployPlatformVersion", "value": "1.3.0"}]
    stack.aws.ecs.tag_resource(resourceArn=stack.service("worker").arn, tags=tags)
    assert find(stack.aws.ecs, CLUSTER, "worker").platform_version == "1.4.0"
