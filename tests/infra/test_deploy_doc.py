"""What docs/DEPLOY.md has people type is what the stack is called. Pulumi's own engine takes it in tests/infra_full."""

from __future__ import annotations

import re
from collections.abc import Callable

from fix_infra import ROOT
from infra_graph.canonical import Resource
from infra_graph.kinds import KINDS

TEXT = (ROOT / "docs/DEPLOY.md").read_text()
# What tasks can not start without; the key seals the other two.
FIRST = {("aws_ecr_repository", "ecs-main"), ("aws_secretsmanager_secret", "ecs-sealing")}
KEY = ("aws_kms_key", "ecs-main")


def test_what_comes_first_is_in_the_stack_by_these_names(production: Callable[[str], list[Resource]]) -> None:
    """Whole names: a pattern such as `**ecs-main**` would also be the services, before their image is there."""
    addresses = re.findall(r"-target=module\.(\w+)\.(\w+)\.(\w+)", TEXT)
    assert {(kind, f"{module}-{name}") for module, kind, name in addresses} == FIRST
    (project,) = re.findall(r"ECS='urn:pulumi:production::([\w-]+)::smtp-proxy:infra:Ecs'", TEXT)
    assert f"name: {project}\n" in (ROOT / "pulumi/Pulumi.yaml").read_text()
    urns = re.findall(r"""--target "\$ECS"'\$([^']+)::([\w-]+)'""", TEXT)
    assert {(KINDS[kind], name) for kind, name in urns} == FIRST | {KEY}
    assert TEXT.count('--target "$ECS') == len(urns) + 1, "and the component that they belong to"
    assert not re.search(r"^ .*--target-dependents", TEXT, re.MULTILINE)
    for side in ("terraform", "pulumi"):
        made = {(each.kind, each.role) for each in production(side)}
        assert FIRST | {KEY} <= made


def test_nothing_is_said_on_a_command_line_that_the_next_apply_would_take_back() -> None:
    assert not re.search(r"^ .*\s-var\b", TEXT, re.MULTILINE)
    said = re.findall(r"^    (\w+) += ", TEXT, re.MULTILINE)
    declared = re.findall(r'^variable "(\w+)"', (ROOT / "terraform/variables.tf").read_text(), re.MULTILINE)
    assert {"environment", "account_id", "zone_id", "smtp_hostname", "image_version"} <= set(said) <= set(declared)
