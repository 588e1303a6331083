"""What `smtp-proxy deploy` is asked for and can not do, or will not: each is one sentence."""

from __future__ import annotations

import pytest
from fix_deploy import CLUSTER, NEW, REPOSITORY, Stack

from smtp_proxy.cli import run
from smtp_proxy.deploy import definition
from smtp_proxy.deploy.run import Aws
from smtp_proxy.errors import DeployFailed, InvalidValue, NotFound

pytestmark = pytest.mark.integration


def test_a_service_that_is_not_there(stack: Stack) -> None:
    stack.build("worker", controller="ECS")
    with pytest.raises(NotFound, match=f"cluster {CLUSTER} has no service dashboard"):
        stack.deploy("dashboard")


def test_what_aws_refuses_is_one_sentence(stack: Stack) -> None:
    with pytest.raises(DeployFailed, match="DescribeServices: AWS says ClusterNotFoundException: "):
        stack.deploy("worker")


@pytest.mark.parametrize(
    "image", [REPOSITORY, f"{REPOSITORY}:latest", "localhost:5000/smtp-proxy", f"{REPOSITORY}@sha256:1"]
)
def test_an_image_that_may_be_another_tomorrow_is_refused(image: str, stack: Stack) -> None:
    with pytest.raises(InvalidValue, match="name a digest"):
        stack.deploy("worker", image)


@pytest.mark.parametrize("image", [NEW, f"{REPOSITORY}:1.4.2", f"localhost:5000/smtp-proxy@sha256:{'a' * 64}"])
def test_an_image_that_stays_is_taken(image: str) -> None:
    definition.check_image(image)


def test_without_a_region_it_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    assert run(["deploy", "worker", "--cluster", CLUSTER, "--image", NEW]) == 1
    assert "no region: say --region, or AWS_REGION" in capsys.readouterr().err


def test_the_region_of_the_environment_is_heard_by_both_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        with monkeypatch.context() as said:
            said.setenv(name, "eu-central-1")
            assert Aws(None).ecs.meta.region_name == "eu-central-1"
