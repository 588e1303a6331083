"""The order of things in a deployment."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from smtp_proxy.deploy import blue_green, check, definition, rolling, scaling
from smtp_proxy.deploy.service import find, others_underway
from smtp_proxy.deploy.waiting import Patience
from smtp_proxy.errors import DeployFailed

# A deployment is over when the old tasks are gone: new ones started and looked at, codedeploy.termination_wait_minutes,
# and a task that holds its protection to the end (TASK_PROTECTION_MAX_MINUTES) and drains then.
WAIT_MINUTES = 120
# As the stack calls the task definition's container, and its family after the cluster's name.
MIGRATE = "migrate"
_NEIGHBOUR = "worker"
# Each migration is a transaction of its own, or a step that may be done twice: there is nothing to take back.
_HALF_MIGRATED = "what it had migrated by then stays: the log says what, and the next run goes on from there"
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be deployed, and where; seconds. Without a command, doctor's checks of what the service serves.

    The service MIGRATE is none, but the task that migrates; the command is what it runs.
    """

    cluster: str
    service: str
    image: str
    application: str
    check_command: Sequence[str] = ()
    check_seconds: float = 600.0
    deploy_seconds: float = WAIT_MINUTES * 60.0
    ignore_alarms: bool = False


class Aws:
    """Clients of boto3, with credentials as every tool of AWS finds them. Raises DeployFailed without a region."""

    def __init__(self, region: str | None) -> None:
        import boto3  # noqa: PLC0415 - slow to load, and no service of ours deploys anything
        from botocore.config import Config  # noqa: PLC0415

        # Of the environment botocore looks at AWS_DEFAULT_REGION alone, the command line of AWS at this one as well.
        session = boto3.session.Session(region_name=region or os.environ.get("AWS_REGION"))
        if session.region_name is None:
            raise DeployFailed("no region: say --region, or AWS_REGION")
        config = Config(connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS, retries={"mode": "standard"})

        def client(name: str) -> Any:
            return session.client(name, config=config)

        self.ecs, self.logs = client("ecs"), client("logs")
        self.codedeploy, self.scaling = client("codedeploy"), client("application-autoscaling")


def deploy(
    aws: Aws, wanted: Wanted, say: Callable[[str], None], patience: Callable[[float], Patience] = Patience
) -> None:
    """Register, check, deploy, and wait for the end; `say` is told each step. Raises SmtpProxyError."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - see Aws

    definition.check_image(wanted.image)
    try:
        if wanted.service == MIGRATE:
            _migrate(aws, wanted, say, patience)
            return
        service = find(aws.ecs, wanted.cluster, wanted.service)
        command = wanted.check_command or check.doctor(service)
        new = definition.register(aws.ecs, service.family, service.container, wanted.image)
        name = new.rpartition("/")[2]
        say(f"{service.name}: {name} has {wanted.image}")
        say(f"{service.name}: `{' '.join(command)}` as a task of {name}")
        check.run(aws.ecs, aws.logs, service, new, command, patience(wanted.check_seconds), say)
        for other in others_underway(aws.ecs, service):
            say(
                f"{other}: is being deployed still; rds.max_connections has room for the tasks of two releases of one "
                "service at a time, so look at database-connections"
            )
        with scaling.suspended(aws.scaling, service, say):
            if service.blue_green:
                waiting = patience(wanted.deploy_seconds)
                blue_green.deploy(
                    aws.codedeploy, wanted.application, service, new, waiting, say, ignore_alarms=wanted.ignore_alarms
                )
            else:
                if wanted.ignore_alarms:
                    say(f"{service.name}: ECS passes over alarms that are in alarm already, by itself")
                rolling.roll(aws.ecs, service, new, patience(wanted.deploy_seconds), say)
    except ClientError as error:
        told = error.response.get("Error", {})
        raise DeployFailed(f"{error.operation_name}: AWS says {told.get('Code')}: {told.get('Message')}") from error
    except BotoCoreError as error:
        raise DeployFailed(f"AWS can not be asked: {error}") from error
    say(f"{service.name}: {name} is in service")


def _migrate(aws: Aws, wanted: Wanted, say: Callable[[str], None], patience: Callable[[float], Patience]) -> None:
    """The task that migrates: no service has it. It runs where the worker does, whose network reaches Postgres."""
    worker = find(aws.ecs, wanted.cluster, _NEIGHBOUR)
    family = f"{wanted.cluster}-{MIGRATE}"
    new = definition.register(aws.ecs, family, MIGRATE, wanted.image)
    task = replace(worker, name=MIGRATE, family=family, container=MIGRATE, serves="", port=None)
    command = wanted.check_command or (MIGRATE,)
    say(f"`{' '.join(command)}` as a task of {new.rpartition('/')[2]}, which has {wanted.image}")
    waiting = patience(wanted.deploy_seconds)
    check.run(aws.ecs, aws.logs, task, new, command, waiting, say, afterwards=_HALF_MIGRATED)
