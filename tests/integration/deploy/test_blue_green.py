"""`smtp-proxy deploy` of a service that CodeDeploy releases: what that is given, and autoscaling meanwhile."""

from __future__ import annotations

import inspect
import json
import shlex
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from fix_deploy import CHECKED, CLUSTER, NEW, OLD, REGION, SCALABLE, Stack, definitions

from smtp_proxy.cli.deploy import deploy as deploy_command
from smtp_proxy.config import Settings
from smtp_proxy.deploy.run import WAIT_MINUTES
from smtp_proxy.errors import DeployFailed, DeployUnfinished

pytestmark = pytest.mark.integration


def test_blue_green(stack: Stack) -> None:
    """REQ-INFRA-ECS-005: a new task definition, checked, and given to CodeDeploy as an AppSpec."""
    stack.build("submission", controller="CODE_DEPLOY")
    stack.deploy("submission")
    old, new = definitions(stack, "submission")
    (was,), (now,) = old["containerDefinitions"], new["containerDefinitions"]
    assert (was["image"], now["image"]) == (OLD, NEW)
    assert {**was, "image": NEW} == now
    assert (new["cpu"], new["taskRoleArn"], new["networkMode"]) == (old["cpu"], old["taskRoleArn"], "awsvpc")

    (task,) = stack.tasks
    assert task.task_definition_arn == new["taskDefinitionArn"]
    assert task.overrides == {"containerOverrides": [{"name": "smtp-proxy", "command": ["doctor", "--only", CHECKED]}]}
    (deployment,) = stack.deployments
    assert deployment.deployment_group.deployment_group_name == "submission"
    assert json.loads(deployment.revision["appSpecContent"]["content"]) == {
        "version": "0.0",
        "Resources": [
            {
                "TargetService": {
                    "Type": "AWS::ECS::Service",
                    "Properties": {
                        "TaskDefinition": new["taskDefinitionArn"],
                        "LoadBalancerInfo": {"ContainerName": "smtp-proxy", "ContainerPort": 2587},
                        "PlatformVersion": "1.4.0",
                        "NetworkConfiguration": {"AwsvpcConfiguration": stack.network("Subnets", "SecurityGroups")},
                    },
                }
            }
        ],
    }
    assert stack.said[-1] == f"submission: {CLUSTER}-submission:2 is in service"


def test_a_release_runs_where_the_stack_says_and_not_where_the_old_one_did(stack: Stack) -> None:
    """An apply can not bring CodeDeploy's services another platform version, or network: it says them, by tags."""
    stack.build("submission", controller="CODE_DEPLOY")
    arn, api = stack.service("submission").arn, boto3.client("ec2", region_name=REGION)
    _, *others = (each["SubnetId"] for each in api.describe_subnets()["Subnets"])
    said = {"DeployPlatformVersion": "1.5.0", "DeploySubnets": " ".join(others[:2]), "DeploySecurityGroups": "sg-new"}
    stack.aws.ecs.tag_resource(resourceArn=arn, tags=[{"key": key, "value": value} for key, value in said.items()])
    asked: list[Any] = []
    stack.aws.ecs.meta.events.register("provide-client-params.ecs.RunTask", lambda params, **_: asked.append(params))
    stack.deploy("submission")
    (deployment,), (check,) = stack.deployments, asked
    (resource,) = json.loads(deployment.revision["appSpecContent"]["content"])["Resources"]
    properties = resource["TargetService"]["Properties"]
    assert properties["PlatformVersion"] == check["platformVersion"] == "1.5.0"
    wanted = {"Subnets": others[:2], "SecurityGroups": ["sg-new"], "AssignPublicIp": "DISABLED"}
    assert properties["NetworkConfiguration"] == {"AwsvpcConfiguration": wanted}
    checked = check["networkConfiguration"]["awsvpcConfiguration"]
    assert {key[0].upper() + key[1:]: value for key, value in checked.items()} == wanted


def test_autoscaling_is_suspended_meanwhile_and_not_afterwards(stack: Stack) -> None:
    stack.build("submission", controller="CODE_DEPLOY")
    before = {
        "DynamicScalingInSuspended": False,
        "DynamicScalingOutSuspended": False,
        "ScheduledScalingSuspended": True,
    }
    stack.aws.scaling.register_scalable_target(
        ResourceId=f"service/{CLUSTER}/submission", SuspendedState=before, **SCALABLE
    )
    stack.deployment_status = "Failed"
    with pytest.raises(DeployFailed):
        stack.deploy("submission")
    assert stack.suspended_meanwhile == [dict.fromkeys(before, True)]
    assert stack.suspension("submission") == before


@pytest.mark.parametrize("status", ["Failed", "Stopped"])
def test_a_deployment_that_is_taken_back_is_told(status: str, stack: Stack) -> None:
    """REQ-INFRA-ECS-006: CodeDeploy takes it back by itself; whoever deployed hears of it, and why."""
    stack.build("submission", controller="CODE_DEPLOY")
    stack.deployment_status = status
    with pytest.raises(DeployFailed, match=rf"deployment [\w-]+ of submission {status.lower()}; the old tasks have"):
        stack.deploy("submission")


def test_a_deployment_that_takes_too_long_goes_on(stack: Stack) -> None:
    stack.build("submission", controller="CODE_DEPLOY")
    stack.deployment_status = "InProgress"
    with pytest.raises(DeployFailed, match=r"goes on by itself: aws deploy get-deployment --deployment-id "):
        stack.deploy("submission")


def test_autoscaling_stays_suspended_under_a_deployment_that_goes_on(stack: Stack) -> None:
    """Scaling in its middle can stop it, or leave twice the tasks; whoever deployed is given what resumes it."""
    stack.build("submission", controller="CODE_DEPLOY")
    stack.deployment_status = "InProgress"
    with pytest.raises(DeployUnfinished):
        stack.deploy("submission")
    assert set(stack.suspension("submission").values()) == {True}
    told = stack.said[-1]
    assert told.startswith("submission: autoscaling stays suspended; when the deployment is over: aws ")
    command = shlex.split(told.partition("over: aws ")[2])
    given = dict(zip(command[2::2], command[3::2], strict=True))
    state = dict(pair.split("=") for pair in given["--suspended-state"].split(","))
    stack.aws.scaling.register_scalable_target(
        ResourceId=given["--resource-id"],
        SuspendedState={key: value == "true" for key, value in state.items()},
        **SCALABLE,
    )
    assert set(stack.suspension("submission").values()) == {False}


@pytest.mark.parametrize("controller", ["CODE_DEPLOY", "ECS"])
def test_what_ends_the_waiting_does_not_end_the_deployment(
    controller: str, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials that expire after an hour, or Ctrl-C: it goes on, so autoscaling stays suspended."""
    stack.build("submission", controller=controller)
    happen = stack.happen

    def interrupted(service: str) -> None:
        happen(service)
        if set(stack.target(service).get("SuspendedState", {}).values()) == {True}:
            raise KeyboardInterrupt

    monkeypatch.setattr(stack, "happen", interrupted)
    stack.deployment_status, stack.rollout_state = "InProgress", "IN_PROGRESS"
    with pytest.raises(
        DeployUnfinished, match=r"goes on by itself: aws .*\(not waited for any more: KeyboardInterrupt"
    ):
        stack.deploy("submission")
    assert set(stack.suspension("submission").values()) == {True}
    assert "autoscaling stays suspended" in stack.said[-1]


def test_it_is_waited_for_as_long_as_old_tasks_may_stay() -> None:
    """New tasks are looked at, traffic moves, the old ones stay for a while and may protect their sessions."""
    of = yaml.safe_load((Path(__file__).resolve().parents[3] / "terraform/stack.yaml").read_text())["defaults"]
    looked_at = (
        of["nlb"]["health_interval_seconds"] * of["nlb"]["healthy_threshold"] + of["scaling"]["task_start_seconds"]
    )
    drained = of["nlb"]["deregistration_delay_seconds"] + of["ecs"]["stop_timeout_seconds"]
    canary = 5  # CodeDeployDefault.ECSCanary10Percent5Minutes
    minutes = of["codedeploy"]["termination_wait_minutes"] + of["codedeploy"]["ready_wait_minutes"] + canary
    protected = Settings.model_fields["task_protection_max_minutes"].default
    least = protected + minutes + (looked_at + drained) / 60
    assert least < WAIT_MINUTES
    assert inspect.signature(deploy_command).parameters["wait_minutes"].default == WAIT_MINUTES


@pytest.mark.parametrize("ignored", [False, True])
def test_the_repair_of_what_is_in_alarm(ignored: bool, stack: Stack) -> None:
    """CodeDeploy stops a deployment of a service in alarm; --ignore-alarms asks none, and is checked all the same.

    What is sent is held to botocore's own model of CreateDeployment; moto drops it.
    """
    stack.build("submission", controller="CODE_DEPLOY")
    sent: list[dict[str, Any]] = []
    events = stack.aws.codedeploy.meta.events
    events.register("provide-client-params.codedeploy.CreateDeployment", lambda params, **_: sent.append(params))
    stack.deploy("submission", ignore_alarms=ignored)
    (request,) = sent
    assert request.get("overrideAlarmConfiguration") == ({"enabled": False} if ignored else None)
    assert len(stack.tasks) == 1
