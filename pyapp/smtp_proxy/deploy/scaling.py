"""Autoscaling, held still while a service is deployed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from smtp_proxy.deploy.service import Service

_DIMENSION = "ecs:service:DesiredCount"
_ALL = ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended")


@contextmanager
def suspended(scaling: Any, service: Service, say: Callable[[str], None]) -> Iterator[None]:
    """While the block runs; then it is as it was. `scaling` is a boto3 client of application-autoscaling.

    Scaling in the middle of a deployment by CodeDeploy can stop it after 5 minutes, or leave twice the tasks that are
    wanted (Amazon ECS developer guide, "Blue/green deployment with CodeDeploy", considerations).
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
        say(f"{service.name}: autoscaling was suspended before, by a deployment that was killed perhaps; it stays so")

    def set_to(state: dict[str, bool]) -> None:
        scaling.register_scalable_target(
            ServiceNamespace="ecs", ResourceId=resource, ScalableDimension=_DIMENSION, SuspendedState=state
        )

    set_to(dict.fromkeys(_ALL, True))
    try:
        yield
    finally:
        set_to(before)
