"""The stack as `smtp-proxy deploy` finds it: in moto, which keeps what is asked of AWS.

What AWS does of itself, `Stack` does to moto.

Import the fixtures into a conftest: `from fix_deploy import aws, stack`.
"""

from __future__ import annotations

import time as wall
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.codedeploy.models import codedeploy_backends
from moto.ecs.models import ecs_backends

from smtp_proxy.clock import ManualClock
from smtp_proxy.deploy.run import Aws, Wanted, deploy
from smtp_proxy.deploy.waiting import Patience

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
        network = self.network("subnets", "securityGroups")
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

    def network(self, subnets: str, groups: str) -> dict[str, Any]:
        """Of the VPC that moto has, as what runs has it."""
        api = boto3.client("ec2", region_name=REGION)
        (subnet, *_), (closed, *_) = api.describe_subnets()["Subnets"], api.describe_security_groups()["SecurityGroups"]
        public = "assignPublicIp" if subnets[0].islower() else "AssignPublicIp"
        return {subnets: [subnet["SubnetId"]], groups: [closed["GroupId"]], public: "DISABLED"}

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
