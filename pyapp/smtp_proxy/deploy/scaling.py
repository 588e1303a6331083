"""Autoscaling, held still while a service is deployed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from smtp_proxy.deploy.service import Service
from smtp_proxy.errors import DeployUnfinished

_DIMENSION = "ecs:service:DesiredCount"
_ALL = ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended")


@contextmanager
def suspended(scaling: Any, service: Service, say: Callable[[str], None]) -> Iterator[None]:
    """While the block runs; then it is as it was. `scaling` is a boto3 client of application-autoscaling.

    A deployment that is not over when the block ends (DeployUnfinished) goes on under suspended scaling; `say` is told
    what resumes it. Scaling in the middle of a deployment by CodeDeploy can stop it after 5 minutes, or leave twice the
    tasks that are wanted (Amazon ECS developer guide, "Blue/green deployment with CodeDeploy", considerations).
    """
    resource = f"service/{service.cluster}/{service.name}"
    targets = scaling.describe_scalable_targets(
        ServiceNamespace="ecs", ResourceIds=[resource], ScalableDimension=_DIMENSION
    )["ScalableTargets"]
    if not targets:
        yield
        return
    before = {key: bool(targets[0].get("SuspendedState", {}).get(key, False)) for key in _ALL}
    if all(before.values()):
        say(
            f"{service.name}: autoscaling was suspended before, by a deployment that was not waited for perhaps, and "
            f"stays so; to resume it: {resuming(resource, dict.fromkeys(_ALL, False))}"
        )

    def set_to(state: dict[str, bool]) -> None:
        scaling.register_scalable_target(
            ServiceNamespace="ecs", ResourceId=resource, ScalableDimension=_DIMENSION, SuspendedState=state
        )

    set_to(dict.fromkeys(_ALL, True))
    later = f"{service.name}: autoscaling stays suspended; when the deployment is over: {resuming(resource, before)}"
    try:
        yield
    except DeployUnfinished:
        say(later)
        raise
    except BaseException:
        # What ended the deployment is told, whether or not AWS takes this call.
        with suppress(Exception):
            _resume(set_to, before, lambda: say(later))
        raise
    _resume(set_to, before, lambda: say(later))


def resuming(resource: str, state: dict[str, bool]) -> str:
    """Pure: the command that gives a service's autoscaling this state."""
    suspended_state = ",".join(f"{key}={str(value).lower()}" for key, value in state.items())
    return (
        "aws application-autoscaling register-scalable-target --service-namespace ecs "
        f"--scalable-dimension {_DIMENSION} --resource-id {resource} --suspended-state {suspended_state}"
    )


def _resume(set_to: Callable[[dict[str, bool]], None], state: dict[str, bool], failed: Callable[[], None]) -> None:
    try:
        set_to(state)
    except BaseException:
        failed()
        raise
