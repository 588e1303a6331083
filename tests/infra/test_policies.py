"""pulumi/policy over the real graph: nothing is found in it, and no exception is made without need.

The pack runs in its own environment, spoken to as Pulumi's engine does; resources are those of the program itself.
What it finds in a graph that is not as it should be: `test_policy_breaches.py` and `test_policy_subjects.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fix_infra import tree
from fix_policies import Graph
from infra_graph.policy_pack import Pack, PackFailed, graph, previewed, providers_of, running

from smtp_proxy_policy import access, reading, rules, storage


@pytest.mark.parametrize("name", ["dev", "staging", "production"])
def test_nothing_is_found(name: str, pack: Pack, graphs: Callable[[str], Graph]) -> None:
    """REQ-INFRA-ECS-004, REQ-INFRA-ECS-010: nor a credential in any task definition."""
    resources = graphs(name)
    assert len(resources) > 250
    assert pack.asks_each(resources) == []
    # Who is told is for whoever has the account; that nobody is, is said and stops nothing.
    assert {each.policy for each in pack.asks_all(resources)} == {"alarms-heard"}


def test_nothing_is_found_with_every_switch_turned(switched_tree: Path, graphs: Callable[[str], Graph]) -> None:
    resources = graphs("switched")
    assert len(resources) > 300
    with running(switched_tree / "pulumi/policy") as pack:  # which reads the stack.yaml beside it
        assert pack.asks_each(resources) == []
        assert pack.asks_all(resources) == []


def test_all_but_one_stop_what_they_find(pack: Pack) -> None:
    policies = pack.policies()
    assert len(policies) == len(rules.RULES) + len(rules.STACK_RULES) > 45
    assert [name for name, stops in policies.items() if not stops] == ["alarms-heard"]


def test_a_preview_stops_nothing_and_says_what_it_could_not_ask(pack: Pack, graphs: Callable[[str], Graph]) -> None:
    """Policy documents and containers have ARNs in them, which are not known before: `up` asks again."""
    resources = previewed(graphs("production"))
    said = pack.asks_each(resources) + pack.asks_all(resources)
    assert [each for each in said if each.stops] == []
    assert {each.policy for each in said} == {
        "actions-named",
        "alarms-heard",
        "buckets-by-tls",
        "containers-hardened",
        "images-pinned",
        "no-credentials",
        "principals-named",
        "resources-named",
        "roles-passed",
    }
    assert all("can't run policy" in each.message for each in said if each.policy != "alarms-heard")


def test_a_row_of_the_table_that_opens_the_database(pack: Pack, tmp_path: Path) -> None:
    """The policies do not take the table's word for it."""
    row = 'direction: ingress, peer: database, port: postgres, why: "RDS Proxy stands in the same group"'
    root = tree(tmp_path / "tree", {"terraform/stack.yaml": [(row, row.replace("peer: database", "peer: world"))]})
    resources = graph(root, "production")
    assert [each.policy for each in pack.asks_each(resources)] == ["entrances"]
    assert {each.policy for each in pack.asks_all(resources) if each.stops} == {"doors"}


def test_a_secret_that_the_program_puts_into_an_environment(pack: Pack, tmp_path: Path) -> None:
    """REQ-INFRA-ECS-010."""
    name = '"METRICS_SERVICE": service,'
    edits = {"pulumi/smtp_proxy_infra/ecs_tasks.py": [(name, f'{name} "DB_PASSWORD": "x",')]}
    heard = pack.asks_each(graph(tree(tmp_path / "tree", edits), "dev"))
    assert {each.policy for each in heard} == {"no-credentials"}
    assert len(heard) == 4  # submission, submissions, worker, certs


def of_pack(resources: Graph) -> list[reading.Found]:
    """As the pack makes it of what the engine hands it; here the rules themselves are asked."""
    providers = {urn: each["inputs"] for urn, each in providers_of(resources).items()}
    return [
        reading.Found(each["type"], each["name"], each["urn"], each["inputs"], providers.get(each["provider"]))
        for each in resources
    ]


@pytest.mark.parametrize(
    "exceptions",
    [
        access.ACTIONS,
        access.ANYTHING,
        access.BOUND,
        access.WITHIN,
        access.TRUSTED,
        access.ATTACHED,
        storage.S3_KEY,
        rules.HARMLESS,
    ],
    ids=["actions", "anything", "bound", "within", "trusted", "attached", "s3-key", "harmless"],
)
def test_every_exception_is_needed_and_has_its_reason(
    exceptions: dict[Any, str], graphs: Callable[[str], Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = of_pack(graphs("production")) + of_pack(graphs("switched"))

    def problems() -> list[str]:
        return [said for each in everything for rule in rules.RULES for said in rule.problems(each)]

    assert problems() == []
    for name, reason in list(exceptions.items()):
        assert len(reason) >= 4, name
        with monkeypatch.context() as patched:
            patched.delitem(exceptions, name)
            assert problems(), f"{name} is not needed any more"


def test_a_pack_that_breaks_says_so(tmp_path: Path) -> None:
    """The client of these tests would otherwise take silence for peace."""
    (tmp_path / "__main__.py").write_text("raise SystemExit('broken')\n")
    with pytest.raises(PackFailed, match="broken"), running(tmp_path):
        pass
