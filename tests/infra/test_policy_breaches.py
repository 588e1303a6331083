"""Each policy finds what it is there for, in one resource or between several, and says what to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fix_policies import Graph, found
from infra_graph.policy_pack import Pack, Resource, previewed, providers_of
from policy_breaches import BETWEEN, BREACHES, Breach
from policy_breaches.breach import CACHE, DATABASE, EGRESS, INGRESS


def breached(resources: Graph, breach: Breach) -> Resource:
    one = found(resources, breach.kind, breach.name)
    breach.change(one["inputs"])
    return one


@pytest.mark.parametrize("breach", BREACHES, ids=[f"{each.policy}: {each.said[:40]}" for each in BREACHES])
def test_a_breach_is_reported(breach: Breach, pack: Pack, graphs: Callable[[str], Graph]) -> None:
    resources = graphs(breach.graph)
    providers = providers_of(resources)
    one = breached(resources, breach)
    said = pack.asks(one, providers)
    mine = [each for each in said if each.policy == breach.policy]
    assert mine, said
    assert all(each.stops and each.urn == one["urn"] for each in mine)
    # Which resource, what is wrong, and, after a semicolon, what to do.
    text = "\n".join(each.message for each in mine)
    assert f"\n{breach.kind} {breach.name}: " in text
    assert breach.said in text
    assert all(";" in each.message for each in mine)


# What none of AWS's answers is in.
KNOWN_BEFORE = [
    each for each in BREACHES if each.kind in (CACHE, DATABASE, EGRESS, INGRESS) and each.graph == "production"
]


def test_what_is_known_before_is_reported_by_a_preview(pack: Pack, graphs: Callable[[str], Graph]) -> None:
    assert len(KNOWN_BEFORE) > 20
    for breach in KNOWN_BEFORE:
        resources = previewed(graphs("production"))
        providers = providers_of(resources)
        said = pack.asks(breached(resources, breach), providers)
        assert [each for each in said if each.policy == breach.policy and each.stops], breach


@pytest.mark.parametrize("known", [True, False], ids=["up", "preview"])
@pytest.mark.parametrize(
    ("policy", "change", "said"),
    [(each[0], each[2], each[3]) for each in BETWEEN],
    ids=[f"{each[0]}: {each[1]}" for each in BETWEEN],
)
def test_a_breach_between_resources_is_reported(
    policy: str, change: Callable[[Graph], object], said: str, known: bool, pack: Pack, graphs: Callable[[str], Graph]
) -> None:
    resources = graphs("production") if known else previewed(graphs("production"))
    change(resources)
    heard = [each for each in pack.asks_all(resources) if each.policy == policy]
    assert heard
    assert all(each.stops and ";" in each.message for each in heard)
    assert said in "\n".join(each.message for each in heard)


def test_every_policy_has_a_breach_that_it_reports(pack: Pack) -> None:
    """One that can not fail would be none."""
    breaches = {each.policy for each in BREACHES} | {each[0] for each in BETWEEN}
    # Tests of their own above.
    assert pack.policies().keys() - breaches == {"tagged", "kinds-known", "alarms-heard"}
