"""The services of a canonical list: their definitions, containers, environments and rights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra_graph.canonical import Resource

# The task that migrates: no service, run by hand.
MIGRATE = "ecs-migrate"
MASTER = "<aws_db_instance|rds-primary|master_user_secret_secret_arn>"


def of_kind(resources: list[Resource], kind: str) -> dict[str, Mapping[str, Any]]:
    return {each.role: each.arguments for each in resources if each.kind == kind}


def services(resources: list[Resource]) -> dict[str, Mapping[str, Any]]:
    return {each["name"]: each for each in of_kind(resources, "aws_ecs_service").values()}


def containers(resources: list[Resource]) -> dict[str, Mapping[str, Any]]:
    """Of services."""
    found = of_kind(resources, "aws_ecs_task_definition")
    return {
        role.removeprefix("ecs-main-"): each["container_definition"] for role, each in found.items() if role != MIGRATE
    }


def migration(resources: list[Resource]) -> Mapping[str, Any]:
    container: Mapping[str, Any] = of_kind(resources, "aws_ecs_task_definition")[MIGRATE]["container_definition"]
    return container


def environment(container: Mapping[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["environment"]}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def role_policies(resources: list[Resource]) -> dict[str, list[Mapping[str, Any]]]:
    found = of_kind(resources, "aws_iam_role_policy")
    return {role: as_list(each["policy"]["Statement"]) for role, each in found.items()}


def task_policies(resources: list[Resource]) -> dict[str, list[Mapping[str, Any]]]:
    return {role: each for role, each in role_policies(resources).items() if role.startswith("ecs-")}
