"""Both descriptions of the AWS stack, rendered once a session."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from infra_graph import terraform
from infra_graph.canonical import Resource, resource

ROOT = Path(__file__).resolve().parents[1]
# By file, what is there once and what stands in its place.
Edits = Mapping[str, list[tuple[str, str]]]
# Variables of Terraform that have a default, and fields of Pulumi's `stack.Own`, which are called alike.
Own = Mapping[str, str | list[str]]
NOTHING: Own = MappingProxyType({})
# What renders one of the two descriptions.
Side = Callable[[str], list[Resource]]
SIDES = pytest.mark.parametrize("side", ["terraform", "pulumi"])

# What production leaves off, switched on, and what it has, off; and what an account may give beside its number.
SWITCHED: Edits = {
    "terraform/stack.yaml": [
        ("    proxy: false\n", "    proxy: true\n"),
        ("    engine: valkey ", "    engine: redis "),
        ('    engine_version: "8.0"', '    engine_version: "7.1"'),
        ("    parameter_family: valkey8", "    parameter_family: redis7"),
        ("  alb:\n    enabled: false\n", "  alb:\n    enabled: true\n"),
        ("    waf: false\n", "    waf: true\n"),
        ("  api:\n    enabled: false\n", "  api:\n    enabled: true\n"),
        ("  dashboard:\n    enabled: false\n", "  dashboard:\n    enabled: true\n"),
        ("    by_tag: false\n", "    by_tag: true\n"),
        ("    spot: false\n", "    spot: true\n"),
        (
            "    prewarm: {}\n",
            '    prewarm: {monday: {service: submission, cron: "cron(45 7 ? * MON *)", min_tasks: 3}}\n',
        ),
    ]
}
OWN: Own = MappingProxyType(
    {
        "zone_id": "Z0123456789ABC",
        "smtp_hostname": "smtp.example.com",
        "http_hostname": "mail.example.com",
        "image_version": "sha256:" + 64 * "0",
        "smarthost_host": "relay.example.com",
        "smarthost_secret_arn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:relay-AbCdEf",
        "smarthost_kms_key_arn": "arn:aws:kms:eu-west-1:123456789012:key/22222222-2222-2222-2222-222222222222",
        "ses_arns": [
            "arn:aws:ses:us-east-1:123456789012:identity/example.com",
            "arn:aws:ses:us-east-1:123456789012:configuration-set/mail",
        ],
        "alert_emails": ["operators@example.com", "on-call@example.com"],
    }
)
SWITCHED_ON = {
    "aws_db_proxy rds-main",
    "aws_elasticache_user elasticache-default",
    "aws_lb alb-main",
    "aws_route53_record nlb-smtp",
    "aws_wafv2_web_acl alb-main",
    "aws_ecs_service ecs-blue-green-dashboard",
    "aws_service_discovery_service ecs-main-api",
    "aws_sns_topic_subscription cloudwatch-email-operators@example.com",
    "aws_cloudwatch_metric_alarm cloudwatch-formula-api-no-healthy-host",
}


def tree(folder: Path, edits: Edits) -> Path:
    """A copy of terraform/ and pulumi/ with edits; each must find its text exactly once."""
    for name in ("terraform", "pulumi"):
        shutil.copytree(
            ROOT / name,
            folder / name,
            ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars", "__pycache__"),
        )
    for name, changes in edits.items():
        text = (folder / name).read_text()
        for old, new in changes:
            assert text.count(old) == 1, f"{name}: {text.count(old)} times: {old}"
            text = text.replace(old, new)
        (folder / name).write_text(text)
    return folder


def terraform_side(root: Path, scratch: Path, environment: str, own: Own = NOTHING) -> list[Resource]:
    return terraform.render(root / "terraform", scratch / "workspace", environment, own)


def pulumi_side(root: Path, environment: str, own: Own = NOTHING) -> list[Resource]:
    path = os.pathsep.join([str(ROOT / "tests"), str(root / "pulumi")])
    command = [sys.executable, "-P", "-m", "infra_graph.pulumi_program", environment, json.dumps(dict(own))]
    # The environment's own PULUMI_* and AWS_* would change what is rendered, or where.
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PULUMI_", "PYTHON"))}
    done = subprocess.run(
        command, env=kept | {"PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=60, cwd=root
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [
        resource(each["kind"], each["role"], each["arguments"], frozenset(each["dependencies"]), each["ignored"])
        for each in json.loads(done.stdout)
    ]


@pytest.fixture(scope="session")
def production(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Resource]]:
    """`terraform` or `pulumi`: the canonical list of production as it is in the checkout."""
    rendered: dict[str, list[Resource]] = {}

    def side(name: str) -> list[Resource]:
        if name not in rendered:
            rendered[name] = (
                terraform_side(ROOT, tmp_path_factory.mktemp("terraform"), "production")
                if name == "terraform"
                else pulumi_side(ROOT, "production")
            )
        return rendered[name]

    return side


@pytest.fixture(scope="session")
def switched(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Resource]]:
    """`terraform` or `pulumi`: the canonical list of dev with every switch turned."""
    folder = tmp_path_factory.mktemp("switched")
    root = tree(folder / "tree", SWITCHED)
    rendered: dict[str, list[Resource]] = {}

    def side(name: str) -> list[Resource]:
        if name not in rendered:
            rendered[name] = (
                terraform_side(root, folder, "dev", OWN) if name == "terraform" else pulumi_side(root, "dev", OWN)
            )
        return rendered[name]

    return side


@pytest.fixture(params=["production", "switched"])
def stack(request: pytest.FixtureRequest) -> Side:
    side: Side = request.getfixturevalue(request.param)
    return side


def reckon(formula: str, values: Mapping[str, float | None]) -> int:
    """As CloudWatch does: its functions and operators are Python's but for these."""
    functions = {
        "MAX": max,
        "MIN": min,
        "FILL": lambda value, empty: empty if value is None else value,
        "IF": lambda condition, value, other: value if condition else other,
    }
    return int(eval(formula.replace(" AND ", " and "), {"__builtins__": {}}, functions | dict(values)))
