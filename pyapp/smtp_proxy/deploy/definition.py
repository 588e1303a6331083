"""The task definition of a release: the newest of its family, with another image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from smtp_proxy.errors import DeployFailed, InvalidValue


def check_image(image: str) -> None:
    """Raises InvalidValue: what it names may be something else tomorrow."""
    _, at, digest = image.partition("@")
    tag = image.rpartition("/")[2].partition(":")[2]
    if (re.fullmatch(r"sha256:[0-9a-f]{64}", digest) is None) if at else tag in ("", "latest"):
        raise InvalidValue(
            f"{image}: name a digest (repository@sha256:…) or a tag that does not move, so that going back is possible"
        )


def register(ecs: Any, family: str, container: str, image: str) -> str:
    """Its ARN; where the newest has this image already, that of the newest. `ecs` is a boto3 client.

    The newest and not the one in service: what the stack has changed of a task, which it does not roll out by itself,
    comes with the next deployment. Raises DeployFailed: the family has no such container.
    """
    described = ecs.describe_task_definition(taskDefinition=family, include=["TAGS"])
    newest = described["taskDefinition"]
    accepted = ecs.meta.service_model.operation_model("RegisterTaskDefinition").input_shape.members
    changed = with_image(newest, container, image)
    if changed == newest:
        return str(newest["taskDefinitionArn"])
    wanted = {key: value for key, value in changed.items() if key in accepted}
    if described.get("tags"):
        wanted["tags"] = described["tags"]
    return str(ecs.register_task_definition(**wanted)["taskDefinition"]["taskDefinitionArn"])


def with_image(definition: Mapping[str, Any], container: str, image: str) -> dict[str, Any]:
    """Pure; every container of the same image is given the new one. Raises DeployFailed."""
    containers = definition["containerDefinitions"]
    old = next((each["image"] for each in containers if each["name"] == container), None)
    if old is None:
        raise DeployFailed(
            f"task definition {definition['family']} has no container {container}: apply the stack first"
        )
    changed = [{**each, "image": image} if each["image"] == old else each for each in containers]
    return {**definition, "containerDefinitions": changed}
