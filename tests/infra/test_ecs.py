"""The services as both sides describe them: what runs, where, and when it ends.

Production, and dev with every switch turned (which has the API and the dashboard as well). What tasks are told is in
`test_ecs_settings.py`, what is secret in `test_ecs_secrets.py`, and what they may do in `test_ecs_rights.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.model import ListShape, Shape, StructureShape
from fix_infra import SIDES, Side
from infra_graph.services import (
    MIGRATE,
    as_list,
    containers,
    environment,
    migration,
    of_kind,
    services,
    task_policies,
)

from smtp_proxy.cli.entry import Service

# As in test_parity.py: the first test waits for what the fixture renders.
pytestmark = pytest.mark.timeout(600)
PORTLESS = {"worker"}
NO_PROCESS_YET = {"dashboard"}


@SIDES
def test_all_services_run_on_fargate(side: str, stack: Side) -> None:
    """REQ-INFRA-ECS-001, REQ-INFRA-ECS-011: on Fargate, and on nothing else."""
    found = services(stack(side))
    assert found.keys() >= {"submission", "submissions", "worker", "certs"}
    for name, each in found.items():
        strategies = as_list(each.get("capacity_provider_strategy", []))
        providers = {strategy["capacity_provider"] for strategy in strategies}
        assert each.get("launch_type") == "FARGATE" or providers <= {"FARGATE", "FARGATE_SPOT"}, name
        assert each.get("launch_type") == "FARGATE" or providers, name
    for definition in of_kind(stack(side), "aws_ecs_task_definition").values():
        assert (definition["requires_compatibility"], definition["network_mode"]) == ("FARGATE", "awsvpc")
    cluster = of_kind(stack(side), "aws_ecs_cluster_capacity_providers")["ecs-main"]
    assert set(cluster["capacity_provider"]) == {"FARGATE", "FARGATE_SPOT"}


@SIDES
def test_services_start_when_their_tasks_can(side: str, production: Side) -> None:
    """With the rights of their roles, and with ways to the image, the secrets and the database."""
    found = [each for each in production(side) if each.kind == "aws_ecs_service"]
    assert len(found) >= 4
    for each in found:
        assert {
            "aws_iam_role_policy ecs-execution",
            f"aws_iam_role_policy ecs-task-{each.arguments['name']}",
            "aws_route vpc-private-a",
            "aws_route_table_association vpc-private-a",
            "aws_vpc_endpoint vpc-s3",
            "aws_vpc_endpoint vpc-interface-ecr.dkr",
            "aws_vpc_security_group_egress_rule vpc-rule-smtp-to-database",
            "aws_vpc_security_group_ingress_rule vpc-rule-database-smtp",
        } <= each.dependencies, each.name


@SIDES
def test_tasks_are_arm64(side: str, stack: Side) -> None:
    """REQ-INFRA-ECS-013."""
    for definition in of_kind(stack(side), "aws_ecs_task_definition").values():
        assert definition["runtime_platform"] == {"cpu_architecture": "ARM64", "operating_system_family": "LINUX"}


@SIDES
def test_every_container_is_asked_whether_it_is_well(side: str, stack: Side) -> None:
    """REQ-INFRA-ECS-012, REQ-INFRA-ECS-007: ECS replaces a task that ends, or whose container is not well."""
    for name, container in containers(stack(side)).items():
        serve, process = container["command"]
        assert serve == "serve", name
        # Liveness: by readiness a Postgres that is away would have every task ended.
        assert container["healthCheck"]["command"] == ["CMD", "smtp-proxy", "healthcheck", "--alive", process], name
        assert name in NO_PROCESS_YET or process in {service.value for service in Service}, name
        assert container["essential"] == "true", name
        assert 4 < int(container["healthCheck"]["timeout"]) < int(container["healthCheck"]["interval"]), name
    for name, service in services(stack(side)).items():
        assert int(service["desired_count"]) >= 1, name


@SIDES
def test_tasks_are_given_the_time_to_drain(side: str, stack: Side) -> None:
    """REQ-INFRA-ECS-009, REQ-INFRA-SCALE-010: two minutes to stop, and protection while a session lives."""
    for name, container in containers(stack(side)).items():
        assert container["stopTimeout"] == "120", name
        given = environment(container)
        if name in ("submission", "submissions", "worker"):
            assert given["TASK_PROTECTION"] == "on", name
        if name in ("submission", "submissions"):
            assert 0 < int(given["SMTP_SESSION_MAX_SECONDS"]) <= 3600, name


@SIDES
def test_who_deploys_what(side: str, stack: Side) -> None:
    """A port has CodeDeploy and one target group; worker and certs roll, and go back by themselves."""
    for name, service in services(stack(side)).items():
        controller = service["deployment_controller"]["type"]
        assert controller == ("ECS" if name in ("worker", "certs") else "CODE_DEPLOY"), name
        assert ("load_balancer" in service) == (name not in PORTLESS), name
        if controller == "ECS":
            assert service["deployment_circuit_breaker"] == {"enable": "true", "rollback": "true"}, name
        else:
            assert "deployment_circuit_breaker" not in service, name
        assert service["network_configuration"]["assign_public_ip"] == "false", name


@SIDES
def test_a_task_can_be_entered(side: str, stack: Side) -> None:
    """REQ-INFRA-ECS-014: ECS Exec, without NAT, and although nothing else of a container can be written to."""
    assert all(each["enable_execute_command"] == "true" for each in services(stack(side)).values())
    assert "vpc-interface-ssmmessages" in of_kind(stack(side), "aws_vpc_endpoint")
    for name, container in containers(stack(side)).items():
        assert container["readonlyRootFilesystem"] == "true", name
        assert container["user"] == "10001", name
        paths = {each["containerPath"] for each in container["mountPoints"]}
        assert paths == {"/var/lib/smtp-proxy", "/var/lib/amazon", "/var/log/amazon"}, name
    for role, statements in task_policies(stack(side)).items():
        may = {action for each in statements for action in as_list(each["Action"])}
        assert ("ssmmessages:OpenDataChannel" in may) == (role not in ("ecs-execution", MIGRATE)), role


@SIDES
def test_images_are_scanned_and_never_changed(side: str, stack: Side) -> None:
    repository = of_kind(stack(side), "aws_ecr_repository")["ecs-main"]
    assert repository["image_tag_mutability"] == "IMMUTABLE"
    assert repository["image_scanning_configuration"] == {"scan_on_push": "true"}
    for name, container in containers(stack(side)).items():
        assert re.search(r"(:first|@sha256:0{64})$", container["image"]), name


@SIDES
def test_what_a_service_runs_is_not_deregistered(side: str, stack: Side) -> None:
    """Services ignore the definition of the next apply, and ECS starts no task of one that is deregistered."""
    definitions = of_kind(stack(side), "aws_ecs_task_definition")
    assert definitions
    assert {each["skip_destroy"] for each in definitions.values()} == {"true"}


@SIDES
def test_each_service_has_a_role_and_a_log_of_its_own(side: str, stack: Side) -> None:
    definitions = of_kind(stack(side), "aws_ecs_task_definition")
    for role, definition in definitions.items():
        service = role.removeprefix("ecs-main-") if role != MIGRATE else "migrate"
        own = MIGRATE if role == MIGRATE else f"ecs-task-{service}"
        assert definition["task_role_arn"].endswith(f"<aws_iam_role|{own}|arn>")
        assert definition["execution_role_arn"].endswith("<aws_iam_role|ecs-execution|arn>")
        options = definition["container_definition"]["logConfiguration"]["options"]
        assert options["awslogs-group"].endswith(f"/{service}")


def unknown_keys(value: Any, shape: Shape, path: str) -> Iterator[str]:
    """Keys that ECS does not know, which it refuses at apply and not before; a list of one is its one."""
    if isinstance(shape, ListShape):
        for each in as_list(value):
            yield from unknown_keys(each, shape.member, path)
    elif isinstance(shape, StructureShape):
        for key, inner in value.items():
            if key not in shape.members:
                yield f"{path}.{key}"
            else:
                yield from unknown_keys(inner, shape.members[key], f"{path}.{key}")


@SIDES
def test_containers_have_the_keys_that_ecs_knows(side: str, stack: Side) -> None:
    shape = botocore.session.get_session().get_service_model("ecs").shape_for("ContainerDefinition")
    for name, container in [*containers(stack(side)).items(), ("migrate", migration(stack(side)))]:
        assert list(unknown_keys(container, shape, name)) == []
    wrong = {"commands": ["serve"], "port_mapping": {}, "healthCheck": {"Command": ["CMD"]}}
    assert list(unknown_keys(wrong, shape, "x")) == ["x.commands", "x.port_mapping", "x.healthCheck.Command"]
