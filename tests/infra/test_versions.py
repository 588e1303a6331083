"""Who says which version runs: AWS, of what it upgrades by itself, or stack.yaml. Never both."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from infra_graph.canonical import Resource

# As in test_parity.py: the first test waits for what the fixture renders.
pytestmark = pytest.mark.timeout(600)

Side = Callable[[str], list[Resource]]
SIDES = pytest.mark.parametrize("side", ["terraform", "pulumi"])


@SIDES
@pytest.mark.parametrize("environment", ["production", "switched"])
def test_an_upgrade_by_aws_is_no_downgrade_in_the_next_plan(
    side: str, environment: str, production: Side, switched: Side
) -> None:
    """A cache at 8.1 whose file says 8.0 would be made anew, empty. RDS takes a major alone, and keeps its minor."""
    resources = {"production": production, "switched": switched}[environment](side)
    found = {
        each.kind: each.arguments
        for each in resources
        if each.kind in ("aws_db_instance", "aws_elasticache_replication_group")
    }
    assert len(found) == 2
    for kind, each in found.items():
        major = re.fullmatch("[0-9]+", each["engine_version"]) is not None
        assert each["auto_minor_version_upgrade"] == ("true" if major else "false"), kind
    assert re.fullmatch("[0-9]+", found["aws_db_instance"]["engine_version"])
