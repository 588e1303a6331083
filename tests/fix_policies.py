"""pulumi/policy as Pulumi's engine runs it, started once a session, and the graphs that it is asked about.

Import the fixtures into a conftest: `from fix_policies import graphs, pack, switched_tree`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fix_infra import OWN, ROOT, SWITCHED, tree
from infra_graph.policy_pack import Pack, Resource, graph, running

Graph = list[Resource]


@pytest.fixture(scope="session")
def pack() -> Iterator[Pack]:
    with running() as found:
        yield found


@pytest.fixture(scope="session")
def switched_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("policies") / "tree", SWITCHED)


@pytest.fixture(scope="session")
def graphs(switched_tree: Path) -> Callable[[str], Graph]:
    """By environment, or `switched`: dev with every switch turned. What is handed out is a copy."""
    known: dict[str, str] = {}

    def of(name: str) -> Graph:
        if name not in known:
            found = graph(switched_tree, "dev", OWN) if name == "switched" else graph(ROOT, name)
            known[name] = json.dumps(found)
        copied: Graph = json.loads(known[name])
        return copied

    return of


def found(resources: Graph, kind: str, name: str) -> Resource:
    (one,) = [each for each in resources if (each["type"], each["name"]) == (kind, name)]
    return one
