"""A deployment by ECS itself, of services without a port that CodeDeploy could move: tasks are replaced by and by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from smtp_proxy.deploy.service import Service
from smtp_proxy.deploy.waiting import Patience, underway
from smtp_proxy.errors import DeployFailed, DeployUnfinished

_LOOK_SECONDS = 10.0


def roll(ecs: Any, service: Service, definition: str, patience: Patience, say: Callable[[str], None]) -> None:
    """Change the service's task definition and wait until all its tasks have it; `ecs` is a boto3 client.

    Raises DeployFailed: the circuit breaker has taken it back.
    Raises DeployUnfinished: it is not over in time, and goes on by itself.
    """
    ecs.update_service(cluster=service.cluster, service=service.name, taskDefinition=definition)
    say(f"{service.name}: rolling to {definition.rpartition('/')[2]}")

    seen = False

    def ended() -> Mapping[str, Any] | None:
        nonlocal seen
        described = ecs.describe_services(cluster=service.cluster, services=[service.name])["services"][0]
        ours = next((each for each in described["deployments"] if each["taskDefinition"] == definition), None)
        # It is not shown at once; and no longer, when the circuit breaker has gone back.
        if ours is None:
            return {"rolloutState": "FAILED"} if seen else None
        seen = True
        return ours if ours.get("rolloutState") in ("COMPLETED", "FAILED") else None

    unfinished = (
        f"{service.name} is not all replaced yet; ECS goes on by itself: "
        f"aws ecs describe-services --cluster {service.cluster} --services {service.name}"
    )
    with underway(unfinished):
        found = patience.until(ended, every_seconds=_LOOK_SECONDS)
    if found is None:
        raise DeployUnfinished(unfinished)
    if found["rolloutState"] != "COMPLETED":
        reason = found.get("rolloutStateReason", "its tasks did not become healthy")
        raise DeployFailed(f"{service.name} was taken back by ECS: {reason}")
