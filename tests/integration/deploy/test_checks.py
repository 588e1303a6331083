"""What is deployed is checked first, by a task with the new image: what that finds, and what it runs."""

from __future__ import annotations

from typing import Any

import pytest
from fix_deploy import CHECKED, CLUSTER, Stack, definitions

from smtp_proxy.cli import run
from smtp_proxy.deploy import check
from smtp_proxy.deploy.service import find
from smtp_proxy.doctor import CHECK_NAMES
from smtp_proxy.errors import DeployFailed

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("controller", ["CODE_DEPLOY", "ECS"])
def test_what_doctor_finds_is_not_deployed(controller: str, stack: Stack) -> None:
    """What it wrote is shown; the service has what it had, and autoscaling was left alone."""
    stack.build("submission", controller=controller)
    stack.exit_code = 1
    stack.log = "smarthost  failed  refuses our certificate"
    with pytest.raises(
        DeployFailed,
        match=f"`doctor --only {CHECKED}` of submission: exit code 1; nothing was deployed",
    ):
        stack.deploy("submission")
    assert "  smarthost  failed  refuses our certificate" in stack.said
    assert (stack.deployments, stack.service("submission").task_definition[-2:]) == ([], ":1")
    assert "SuspendedState" not in stack.target("submission")


def test_a_check_that_does_not_end_is_stopped(stack: Stack) -> None:
    stack.build("submission", controller="CODE_DEPLOY")
    stack.exit_code = None
    with pytest.raises(DeployFailed, match="did not end in time"):
        stack.deploy("submission")
    (task,) = stack.tasks
    assert (task.desired_status, task.stopped_reason) == ("STOPPED", "it took too long")
    assert stack.deployments == []


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"containers": [{"name": "smtp-proxy", "exitCode": 0}]}, None),
        ({"containers": [{"name": "smtp-proxy", "exitCode": 2}]}, "exit code 2"),
        (
            {"containers": [{"name": "smtp-proxy"}], "stoppedReason": "CannotPullContainerError: no such manifest"},
            "CannotPullContainerError: no such manifest",
        ),
        ({"containers": [{"name": "smtp-proxy", "reason": "OutOfMemoryError"}]}, "OutOfMemoryError"),
        ({"containers": [{"name": "other", "exitCode": 0}]}, "it never ran, and ECS says not why"),
    ],
)
def test_a_task_that_never_ran_is_not_well(task: dict[str, Any], said: str | None) -> None:
    assert check.verdict(task, "smtp-proxy") == said


@pytest.mark.parametrize("serves", check.CHECKS)
def test_the_checks_that_are_run_are_doctor_s(serves: str) -> None:
    assert set(check.CHECKS[serves]) <= {"settings", *CHECK_NAMES}


def test_the_command_that_is_run_is_one(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends by 0 where there is nothing to find; in place of what needs Postgres, a check that does not."""
    stack.build("worker", controller="ECS", command=["serve", "dashboard"])
    command = check.doctor(find(stack.aws.ecs, CLUSTER, "worker"))
    assert run(command) == 0
    assert "all settings can be read" in capsys.readouterr().out


def test_of_what_is_not_known_a_check_must_be_said(stack: Stack) -> None:
    stack.build("worker", controller="ECS", command=["run-something"])
    with pytest.raises(DeployFailed, match="of which no check is known: say one, with --check"):
        stack.deploy("worker")
    assert (len(definitions(stack, "worker")), stack.tasks) == (1, [])
