"""Policy documents as terraform/ writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

VERSION = "2012-10-17"


def trust(service: str) -> str:
    """Who may take a role: one AWS service, such as `rds.amazonaws.com`."""
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": service}}
    return json.dumps({"Version": VERSION, "Statement": [statement]})


def allow(
    actions: Sequence[str], resources: Sequence[pulumi.Input[str]], condition: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """One statement."""
    statement: dict[str, Any] = {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    return statement | ({"Condition": condition} if condition else {})


def policy(*statements: Mapping[str, Any]) -> pulumi.Output[str]:
    """A document of these statements, whose ARNs may not be known yet."""
    return pulumi.Output.json_dumps({"Version": VERSION, "Statement": list(statements)})
