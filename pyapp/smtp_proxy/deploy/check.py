"""A command of the new release as a task of its own, before there is traffic: `smtp-proxy doctor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from smtp_proxy.deploy.service import Service
from smtp_proxy.deploy.waiting import Patience
from smtp_proxy.errors import DeployFailed

# By what the service's container is told to `serve`, the checks of doctor: of what it talks to itself, since security
# groups let it reach nothing else. Not `listeners`, which a task has not while doctor runs in place of the service; not
# `domains` and `hostname`, since a tenant's DNS is no reason to keep a release back.
CHECKS: Mapping[str, Sequence[str]] = {
    "smtp": ("settings", "limits", "postgres", "redis"),
    "worker": ("settings", "limits", "postgres", "redis", "smarthost", "ses"),
    "certs": ("settings", "postgres"),
    "api": ("settings", "postgres"),
    "dashboard": ("settings",),
}
_STARTED_BY = "smtp-proxy-deploy"
_LOOK_SECONDS = 5.0
_LINES = 200


def doctor(service: Service) -> Sequence[str]:
    """The check of a service. Raises DeployFailed: nothing is known of it."""
    if service.serves not in CHECKS:
        raise DeployFailed(
            f"{service.name}: its container serves {service.serves or 'nothing'}, of which no check is known: "
            "say one, with --check"
        )
    return ("doctor", "--only", ",".join(CHECKS[service.serves]))


def run(
    ecs: Any,
    logs: Any,
    service: Service,
    definition: str,
    command: Sequence[str],
    patience: Patience,
    say: Callable[[str], None],
    *,
    afterwards: str = "nothing was deployed",
) -> None:
    """Run it and wait for its end; what it wrote is said. `ecs` and `logs` are boto3 clients.

    `afterwards`: how things are if it began and did not end well.

    Raises DeployFailed: it could not be started, found something, or did not end in time (then it is stopped).
    """
    started = ecs.run_task(
        cluster=service.cluster,
        taskDefinition=definition,
        count=1,
        launchType="FARGATE",
        platformVersion=service.platform_version,
        networkConfiguration=service.network,
        startedBy=_STARTED_BY,
        overrides={"containerOverrides": [{"name": service.container, "command": list(command)}]},
    )
    if not started["tasks"]:
        reasons = ", ".join(str(each.get("reason")) for each in started.get("failures", ())) or "no reason given"
        raise DeployFailed(f"the task of {service.name} could not be started ({reasons}); nothing was deployed")
    arn = started["tasks"][0]["taskArn"]

    def ended() -> Mapping[str, Any] | None:
        tasks = ecs.describe_tasks(cluster=service.cluster, tasks=[arn])["tasks"]  # none at first, now and then
        return tasks[0] if tasks and tasks[0]["lastStatus"] == "STOPPED" else None

    task = patience.until(ended, every_seconds=_LOOK_SECONDS)
    if task is None:
        ecs.stop_task(cluster=service.cluster, task=arn, reason="it took too long")
        raise DeployFailed(f"the task of {service.name} did not end in time; it was stopped, and {afterwards}")
    for line in _written(ecs, logs, definition, service.container, arn):
        say(f"  {line}")
    if (trouble := verdict(task, service.container)) is not None:
        raise DeployFailed(f"`{' '.join(command)}` of {service.name}: {trouble}; {afterwards}")


def verdict(task: Mapping[str, Any], container: str) -> str | None:
    """Pure: what is wrong with a task that has ended, or None. `task` is what DescribeTasks answers."""
    found: Mapping[str, Any] = next((each for each in task["containers"] if each["name"] == container), {})
    code = found.get("exitCode")
    if code is None:
        return str(found.get("reason") or task.get("stoppedReason") or "it never ran, and ECS says not why")
    return None if code == 0 else f"exit code {code}"


def _written(ecs: Any, logs: Any, definition: str, container: str, task_arn: str) -> list[str]:
    """The first lines of its log, as the definition says where it is; none where the log is elsewhere or not there."""
    described = ecs.describe_task_definition(taskDefinition=definition)["taskDefinition"]["containerDefinitions"]
    log = next(each for each in described if each["name"] == container).get("logConfiguration", {})
    options = log.get("options", {})
    if log.get("logDriver") != "awslogs" or not {"awslogs-group", "awslogs-stream-prefix"} <= options.keys():
        return []
    try:
        events = logs.get_log_events(
            logGroupName=options["awslogs-group"],
            logStreamName=f"{options['awslogs-stream-prefix']}/{container}/{task_arn.rpartition('/')[2]}",
            startFromHead=True,
            limit=_LINES,
        )["events"]
    except logs.exceptions.ResourceNotFoundException:
        return []
    return [str(each["message"]) for each in events]
