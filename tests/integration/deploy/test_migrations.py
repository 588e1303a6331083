"""`smtp-proxy deploy migrate`: a task with a definition of its own, which no service has."""

from __future__ import annotations

import pytest
from fix_deploy import CLUSTER, NEW, REGION, Stack, definitions

from smtp_proxy.cli import run
from smtp_proxy.deploy.run import Aws
from smtp_proxy.errors import DeployFailed

pytestmark = pytest.mark.integration


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
