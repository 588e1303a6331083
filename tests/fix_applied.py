"""The Terraform stack on a local AWS (tests/local_aws): production, in an account that answers from this machine.

Import the fixtures: `from fix_applied import applied, destroyed, edited, lifted, local_aws`.
"""

from __future__ import annotations

import json
import sys
import time as wall
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from fix_infra import ROOT
from fix_moto import serving
from infra_graph.terraform import ACCOUNT, Own, Workspace

# Four calls at a time: most of the time is waited for all the same, and a machine with two cores answers them in time.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "NO_PROXY": "127.0.0.1",
    "TF_CLI_ARGS_apply": "-parallelism=4",
    "TF_CLI_ARGS_destroy": "-parallelism=4",
}
# Without `skip_credentials_validation`: whose account it is, is asked and compared. Few tries, so that what the local
# AWS has not got is told soon.
PROVIDER = """
provider "aws" {
  max_retries             = 3
  s3_use_path_style       = true
  skip_metadata_api_check = true
}
"""
STACK = "stack.yaml"
# Creation of a database and of a load balancer is waited for in steps of half a minute, whatever answers.
LONG_SECONDS = 1200


def changes(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a plan would do, by address."""
    return {
        each["address"]: each["change"]
        for each in plan["resource_changes"]
        if each["change"]["actions"] not in (["no-op"], ["read"])
    }


@dataclass
class Stack:
    """One life of the stack: each fixture below takes it a step further, and notes what it saw."""

    url: str
    workspace: Workspace
    own: Own
    secrets: list[str]
    planned: dict[str, dict[str, Any]] = field(default_factory=dict)
    again: dict[str, dict[str, Any]] = field(default_factory=dict)
    edit: dict[str, dict[str, Any]] = field(default_factory=dict)
    lift: dict[str, dict[str, Any]] = field(default_factory=dict)

    def api(self, service: str) -> Any:
        return boto3.client(
            service,
            region_name="us-east-1",
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def plan(self) -> dict[str, dict[str, Any]]:
        return changes(self.workspace.plan("production", self.own))

    def apply(self) -> None:
        """The plan that was made last, and no other."""
        _timed("apply", lambda: self.workspace.run("apply", "-input=false", "plan.bin", timeout=LONG_SECONDS))

    def replace(self, *edits: tuple[str, str]) -> None:
        """In stack.yaml, where each stands once."""
        file = self.workspace.folder / STACK
        text = file.read_text()
        for there, instead in edits:
            assert text.count(there) == 1, f"{text.count(there)} times: {there}"
            text = text.replace(there, instead)
        file.write_text(text)

    @property
    def state(self) -> str:
        return (self.workspace.folder / "terraform.tfstate").read_text()


def _timed(what: str, step: Callable[[], object]) -> None:
    """Whoever waits sees how it goes on: `make infra-full` shows what is printed."""
    begun = wall.monotonic()
    step()
    sys.stderr.write(f"\n{what}: {wall.monotonic() - begun:.0f} s\n")


@pytest.fixture(scope="session")
def local_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving("local_aws", tmp_path_factory.mktemp("aws") / "log", str(ROOT / "tests")) as url:
        yield url


@pytest.fixture(scope="session")
def applied(local_aws: str, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """Planned, applied, given the values of its secrets as docs/DEPLOY.md says, and planned again."""
    stack = prepared(local_aws, tmp_path_factory.mktemp("terraform"))
    stack.planned = stack.plan()
    stack.apply()
    vault = stack.api("secretsmanager")
    vault.put_secret_value(SecretId="smtp-proxy-production/secret-key", SecretString="sealing-key-that-nobody-may-read")
    stack.again = stack.plan()
    # What a second apply would find out by itself: the state as it is after everything was read again.
    arguments = ["apply", "-refresh-only", "-auto-approve", "-input=false", *variables(stack.own)]
    stack.workspace.run(*arguments, timeout=LONG_SECONDS)
    stack.secrets = [
        vault.get_secret_value(SecretId=each["ARN"])["SecretString"] for each in vault.list_secrets()["SecretList"]
    ]
    return stack


def prepared(url: str, folder: Path) -> Stack:
    """An account that has a zone and a smarthost's login, and a configuration that was applied to nothing yet."""
    workspace = Workspace(ROOT / "terraform", folder / "workspace", PROVIDER, ENVIRONMENT | {"AWS_ENDPOINT_URL": url})
    stack = Stack(url, workspace, {}, [])
    zone = stack.api("route53").create_hosted_zone(Name="example.com", CallerReference="test")["HostedZone"]["Id"]
    login = json.dumps({"username": "relay-user", "password": "relay-password-that-nobody-may-read"})
    secret = stack.api("secretsmanager").create_secret(Name="relay", SecretString=login)["ARN"]
    stack.own = {
        "zone_id": zone.removeprefix("/hostedzone/"),
        "smtp_hostname": "smtp.example.com",
        "image_version": "sha256:" + 64 * "0",
        "smarthost_host": "relay.example.com",
        "smarthost_secret_arn": secret,
        "ses_arns": [f"arn:aws:ses:us-east-1:{ACCOUNT}:identity/example.com"],
        "alert_emails": ["operators@example.com"],
    }
    return stack


def variables(own: Own) -> list[str]:
    said = {"environment": "production", "account_id": ACCOUNT, **own}
    return [f"-var={name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in said.items()]


@pytest.fixture(scope="session")
def edited(applied: Stack) -> Stack:
    """One number of stack.yaml is another."""
    applied.replace(("flow_log_retention_days: 30", "flow_log_retention_days: 60"))
    applied.edit = applied.plan()
    applied.apply()
    return applied


@pytest.fixture(scope="session")
def lifted(edited: Stack) -> Stack:
    """The first time that data is asked for: docs/DEPLOY.md, "Taking it down"."""
    edited.replace(
        (
            "monitoring_interval: 60\n    deletion_protection: true",
            "monitoring_interval: 60\n    deletion_protection: false",
        ),
        ("cross_zone: true\n    deletion_protection: true", "cross_zone: true\n    deletion_protection: false"),
    )
    edited.lift = edited.plan()
    edited.apply()
    return edited


@pytest.fixture(scope="session")
def destroyed(lifted: Stack) -> Stack:
    arguments = ["destroy", "-auto-approve", "-input=false", *variables(lifted.own)]
    _timed("destroy", lambda: lifted.workspace.run(*arguments, timeout=LONG_SECONDS))
    return lifted
