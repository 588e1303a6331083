"""`smtp-proxy deploy` against moto, which keeps what is asked of AWS; what AWS does of itself, tests do to moto."""

from __future__ import annotations

import inspect
import json
import shlex
import time as wall
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws
from moto.codedeploy.models import codedeploy_backends
from moto.ecs.models import ecs_backends

from smtp_proxy.cli import run
from smtp_proxy.cli.deploy import deploy as deploy_command
from smtp_proxy.clock import ManualClock
from smtp_proxy.config import Settings
from smtp_proxy.deploy import check, definition
from smtp_proxy.deploy.run import WAIT_MINUTES, Aws, Wanted, deploy
from smtp_proxy.deploy.service import find
from smtp_proxy.deploy.waiting import Patience
from smtp_proxy.doctor import CHECK_NAMES
from smtp_proxy.errors import DeployFailed, DeployUnfinished, InvalidValue, NotFound

pytestmark = pytest.mark.integration

REGION, ACCOUNT, CLUSTER = "us-east-1", "123456789012", "smtp-proxy-production"
CHECKED = "settings,limits,postgres,redis"
REPOSITORY = "registry.example.com/smtp-proxy"
OLD, NEW = f"{REPOSITORY}@sha256:{'0' * 64}", f"{REPOSITORY}@sha256:{'1' * 64}"
SCALABLE = {"ServiceNamespace": "ecs", "ScalableDimension": "ecs:service:DesiredCount"}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws():
        yield Aws(REGION)


@dataclass
class Stack:
    """What terraform/ and pulumi/ make, in moto; and what AWS would do next, once for each time that is slept."""

    aws: Aws
    exit_code: int | None = 0
    deployment_status: str = "Succeeded"
    rollout_state: str = "COMPLETED"
    log: str = "settings  ok  all settings can be read"
    said: list[str] = field(default_factory=list)
    suspended_meanwhile: list[dict[str, bool]] = field(default_factory=list)

    @property
    def ecs(self) -> Any:
        return ecs_backends[ACCOUNT][REGION]

    @property
    def deployments(self) -> list[Any]:
        return list(codedeploy_backends[ACCOUNT][REGION].deployments.values())

    @property
    def tasks(self) -> list[Any]:
        return list(self.ecs.tasks.get(CLUSTER, {}).values())

    def build(self, service: str, *, controller: str, command: Sequence[str] = ("serve", "smtp")) -> None:
        ecs = self.aws.ecs
        ecs.create_cluster(clusterName=CLUSTER)
        ecs.register_task_definition(
            family=f"{CLUSTER}-{service}",
            requiresCompatibilities=["FARGATE"],
            networkMode="awsvpc",
            cpu="512",
            memory="1024",
            taskRoleArn=f"arn:aws:iam::{ACCOUNT}:role/{service}",
            executionRoleArn=f"arn:aws:iam::{ACCOUNT}:role/execution",
            runtimePlatform={"cpuArchitecture": "ARM64"},
            tags=[{"key": "Project", "value": "smtp-proxy"}],
            containerDefinitions=[
                {
                    "name": "smtp-proxy",
                    "image": OLD,
                    "memory": 1024,  # moto wants it here
                    "command": list(command),
                    "environment": [{"name": "DB_SECRET", "value": "arn:aws:secretsmanager:…"}],
                    "portMappings": [{"containerPort": 2587}],
                    "stopTimeout": 120,
                    "logConfiguration": {
                        "logDriver": "awslogs",
                        "options": {
                            "awslogs-group": f"/{CLUSTER}/{service}",
                            "awslogs-region": REGION,
                            "awslogs-stream-prefix": "ecs",
                        },
                    },
                }
            ],
        )
        api = boto3.client("ec2", region_name=REGION)
        (subnet, *_), (closed, *_) = api.describe_subnets()["Subnets"], api.describe_security_groups()["SecurityGroups"]
        network = {"subnets": [subnet["SubnetId"]], "securityGroups": [closed["GroupId"]], "assignPublicIp": "DISABLED"}
        group = f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:targetgroup/blue/0123456789abcdef"
        balancers = [{"targetGroupArn": group, "containerName": "smtp-proxy", "containerPort": 2587}]
        ecs.create_service(
            cluster=CLUSTER,
            serviceName=service,
            taskDefinition=f"{CLUSTER}-{service}",
            desiredCount=2,
            launchType="FARGATE",
            platformVersion="1.4.0",
            deploymentController={"type": controller},
            networkConfiguration={"awsvpcConfiguration": network},
            loadBalancers=balancers if controller == "CODE_DEPLOY" else [],
        )
        if controller == "CODE_DEPLOY":
            # As ECS makes one of a service with this controller.
            task_set = ecs.create_task_set(
                cluster=CLUSTER,
                service=service,
                taskDefinition=f"{CLUSTER}-{service}",
                launchType="FARGATE",
                platformVersion="1.4.0",
                networkConfiguration={"awsvpcConfiguration": network},
                loadBalancers=balancers,
            )["taskSet"]
            ecs.update_service_primary_task_set(cluster=CLUSTER, service=service, primaryTaskSet=task_set["taskSetArn"])
        self.aws.scaling.register_scalable_target(
            ResourceId=f"service/{CLUSTER}/{service}", MinCapacity=2, MaxCapacity=20, **SCALABLE
        )
        if controller == "CODE_DEPLOY":
            self.aws.codedeploy.create_application(applicationName=CLUSTER, computePlatform="ECS")
            self.aws.codedeploy.create_deployment_group(
                applicationName=CLUSTER,
                deploymentGroupName=service,
                deploymentConfigName="CodeDeployDefault.ECSAllAtOnce",
                serviceRoleArn=f"arn:aws:iam::{ACCOUNT}:role/codedeploy",
            )

    def service(self, name: str) -> Any:
        return self.ecs.services[f"{CLUSTER}:{name}"]

    def suspension(self, service: str) -> dict[str, bool]:
        return dict(self.target(service)["SuspendedState"])

    def target(self, service: str) -> dict[str, Any]:
        (target,) = self.aws.scaling.describe_scalable_targets(
            ServiceNamespace="ecs", ResourceIds=[f"service/{CLUSTER}/{service}"]
        )["ScalableTargets"]
        return dict(target)

    def build_migrate(self) -> None:
        """The definition that no service has."""
        self.aws.ecs.register_task_definition(
            family=f"{CLUSTER}-migrate",
            requiresCompatibilities=["FARGATE"],
            networkMode="awsvpc",
            cpu="256",
            memory="512",
            taskRoleArn=f"arn:aws:iam::{ACCOUNT}:role/migrate",
            containerDefinitions=[{"name": "migrate", "image": OLD, "memory": 512, "command": ["migrate"]}],
        )

    def deploy(self, service: str, image: str = NEW, *command: str, ignore_alarms: bool = False) -> None:
        clock = ManualClock()

        def sleep(seconds: float) -> None:
            clock.advance(seconds)
            self.happen(service)

        def patience(seconds: float) -> Patience:
            return Patience(seconds, clock=clock, sleep=sleep)

        wanted = Wanted(
            cluster=CLUSTER,
            service=service,
            image=image,
            application=CLUSTER,
            check_command=command,
            ignore_alarms=ignore_alarms,
        )
        deploy(self.aws, wanted, self.said.append, patience)

    def happen(self, service: str) -> None:
        for task in self.tasks:
            if self.exit_code is None:
                task.last_status = "RUNNING"  # moto would end it by and by
            else:
                task.last_status = "STOPPED"
                task.containers[0].exitCode = self.exit_code
                self.write_log(service, task.id)
        for deployment in self.deployments:
            self.suspended_meanwhile.append(self.suspension(service))
            deployment.status = self.deployment_status
        for each in self.service(service).deployments if service != "migrate" else ():
            # moto keeps the first definition for ever
            each |= {"taskDefinition": self.service(service).task_definition, "rolloutState": self.rollout_state}

    def write_log(self, service: str, task_id: str) -> None:
        logs, group, stream = self.aws.logs, f"/{CLUSTER}/{service}", f"ecs/smtp-proxy/{task_id}"
        if not logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
            logs.create_log_group(logGroupName=group)
        if not logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=stream)["logStreams"]:
            logs.create_log_stream(logGroupName=group, logStreamName=stream)
            event = {"timestamp": int(wall.time() * 1000), "message": self.log}
            logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[event])


@pytest.fixture
def stack(aws: Aws) -> Stack:
    return Stack(aws)


def definitions(stack: Stack, service: str) -> list[dict[str, Any]]:
    arns = stack.aws.ecs.list_task_definitions(familyPrefix=f"{CLUSTER}-{service}")["taskDefinitionArns"]
    return [stack.aws.ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"] for arn in arns]


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
                    },
                }
            }
        ],
    }
    assert stack.said[-1] == f"submission: {CLUSTER}-submission:2 is in service"


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


@pytest.mark.parametrize("controller", ["CODE_DEPLOY", "ECS"])
def test_what_doctor_finds_is_not_deployed(controller: str, stack: Stack) -> None:
    """What it wrote is shown; the service has what it had, and autoscaling was left alone."""
    stack.build("submission", controller=controller)
    stack.exit_code = 1
    stack.log = "smarthost  failed  refuses our certificate"
    with pytest.raises(
        DeployFailed,
        match=f"`doctor --only {CHECKED}` of submission: exit code 1; nothing was deployed",
    ):
        stack.deploy("submission")
    assert "  smarthost  failed  refuses our certificate" in stack.said
    assert (stack.deployments, stack.service("submission").task_definition[-2:]) == ([], ":1")
    assert "SuspendedState" not in stack.target("submission")


def test_a_check_that_does_not_end_is_stopped(stack: Stack) -> None:
    stack.build("submission", controller="CODE_DEPLOY")
    stack.exit_code = None
    with pytest.raises(DeployFailed, match="did not end in time"):
        stack.deploy("submission")
    (task,) = stack.tasks
    assert (task.desired_status, task.stopped_reason) == ("STOPPED", "it took too long")
    assert stack.deployments == []


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


def test_migrations_are_a_task_with_a_definition_of_their_own(stack: Stack) -> None:
    """Which knows the master of the database, as no service does; it runs in the worker's network, and ends."""
    stack.build("worker", controller="ECS")
    stack.build_migrate()
    stack.deploy("migrate", NEW, "migrate", "--pre-only")
    (_, new) = definitions(stack, "migrate")
    assert (new["containerDefinitions"][0]["image"], new["taskRoleArn"][-8:]) == (NEW, "/migrate")
    (task,) = stack.tasks
    assert task.task_definition_arn == new["taskDefinitionArn"]
    assert task.overrides == {"containerOverrides": [{"name": "migrate", "command": ["migrate", "--pre-only"]}]}
    assert stack.service("worker").task_definition.endswith("-worker:1")
    stack.deploy("migrate")
    assert stack.tasks[-1].overrides["containerOverrides"][0]["command"] == ["migrate"]


@pytest.mark.parametrize(("exit_code", "said"), [(1, "exit code 1; what"), (None, "it was stopped, and what")])
def test_of_a_failed_migration_it_is_not_said_that_nothing_was_done(
    exit_code: int | None, said: str, stack: Stack
) -> None:
    """Each of them is committed by itself: those before the one that failed stay."""
    stack.build("worker", controller="ECS")
    stack.build_migrate()
    stack.exit_code = exit_code
    with pytest.raises(DeployFailed, match=f"{said} it had migrated by then stays.* the next run goes on"):
        stack.deploy("migrate")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["worker", "--pre-only"], "--pre-only is said of migrate, not of worker"),
        (["migrate", "--check", "doctor"], "--check: a migration is what runs"),
        (["migrate", "--ignore-alarms"], "--ignore-alarms: no alarm stops a migration"),
    ],
)
def test_what_is_said_of_migrations_alone_or_never(
    aws: Aws, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["deploy", *arguments, "--cluster", CLUSTER, "--image", NEW, "--region", REGION]
    assert run(command) != 0
    assert said in capsys.readouterr().err


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


def test_a_service_that_is_not_there(stack: Stack) -> None:
    stack.build("worker", controller="ECS")
    with pytest.raises(NotFound, match=f"cluster {CLUSTER} has no service dashboard"):
        stack.deploy("dashboard")


def test_what_aws_refuses_is_one_sentence(stack: Stack) -> None:
    with pytest.raises(DeployFailed, match="DescribeServices: AWS says ClusterNotFoundException: "):
        stack.deploy("worker")


@pytest.mark.parametrize(
    "image", [REPOSITORY, f"{REPOSITORY}:latest", "localhost:5000/smtp-proxy", f"{REPOSITORY}@sha256:1"]
)
def test_an_image_that_may_be_another_tomorrow_is_refused(image: str, stack: Stack) -> None:
    with pytest.raises(InvalidValue, match="name a digest"):
        stack.deploy("worker", image)


@pytest.mark.parametrize("image", [NEW, f"{REPOSITORY}:1.4.2", f"localhost:5000/smtp-proxy@sha256:{'a' * 64}"])
def test_an_image_that_stays_is_taken(image: str) -> None:
    definition.check_image(image)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"containers": [{"name": "smtp-proxy", "exitCode": 0}]}, None),
        ({"containers": [{"name": "smtp-proxy", "exitCode": 2}]}, "exit code 2"),
        (
            {"containers": [{"name": "smtp-proxy"}], "stoppedReason": "CannotPullContainerError: no such manifest"},
            "CannotPullContainerError: no such manifest",
        ),
        ({"containers": [{"name": "smtp-proxy", "reason": "OutOfMemoryError"}]}, "OutOfMemoryError"),
        ({"containers": [{"name": "other", "exitCode": 0}]}, "it never ran, and ECS says not why"),
    ],
)
def test_a_task_that_never_ran_is_not_well(task: dict[str, Any], said: str | None) -> None:
    assert check.verdict(task, "smtp-proxy") == said


@pytest.mark.parametrize("serves", check.CHECKS)
def test_the_checks_that_are_run_are_doctor_s(serves: str) -> None:
    assert set(check.CHECKS[serves]) <= {"settings", *CHECK_NAMES}


def test_the_command_that_is_run_is_one(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends by 0 where there is nothing to find; in place of what needs Postgres, a check that does not."""
    stack.build("worker", controller="ECS", command=["serve", "dashboard"])
    command = check.doctor(find(stack.aws.ecs, CLUSTER, "worker"))
    assert run(command) == 0
    assert "all settings can be read" in capsys.readouterr().out


def test_of_what_is_not_known_a_check_must_be_said(stack: Stack) -> None:
    stack.build("worker", controller="ECS", command=["run-something"])
    with pytest.raises(DeployFailed, match="of which no check is known: say one, with --check"):
        stack.deploy("worker")
    assert (len(definitions(stack, "worker")), stack.tasks) == (1, [])


def test_without_a_region_it_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    assert run(["deploy", "worker", "--cluster", CLUSTER, "--image", NEW]) == 1
    assert "no region: say --region, or AWS_REGION" in capsys.readouterr().err


def test_the_region_of_the_environment_is_heard_by_both_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        with monkeypatch.context() as said:
            said.setenv(name, "eu-central-1")
            assert Aws(None).ecs.meta.region_name == "eu-central-1"
