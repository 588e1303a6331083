"""Whose a resource is, and of what kind: policies refuse what does not say, or what nobody thought of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest
from fix_policies import Graph, found
from infra_graph.policy_pack import Pack, providers_of
from policy_breaches.breach import DATABASE, PROVIDER


def tagged(resources: Graph, tags: Mapping[str, str]) -> Graph:
    found(resources, PROVIDER, "aws")["inputs"]["defaultTags"] = json.dumps({"tags": tags})
    return resources


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"Project": "smtp-proxy"}, "has no tags that say whose it is; make it"),
        ({"Environment": "production"}, "has no tags that say whose it is; make it"),
        ({"Project": "smtp-proxy", "Environment": "test"}, "is tagged test, which stack.yaml does not know; set"),
        ({"Project": "smtp-proxy", "Environment": "dev"}, "belongs to stack production and is tagged dev; set"),
    ],
)
def test_tags_are_wanted(tags: Mapping[str, str], said: str, pack: Pack, graphs: Callable[[str], Graph]) -> None:
    resources = tagged(graphs("production"), tags)
    vpc = found(resources, "aws:ec2/vpc:Vpc", "vpc-main")
    heard = pack.asks(vpc, providers_of(resources))
    assert {(each.policy, each.stops) for each in heard} == {("tagged", True)}
    assert said in heard[0].message


def test_a_provider_that_is_not_the_stacks_is_noticed(pack: Pack, graphs: Callable[[str], Graph]) -> None:
    resources = graphs("production")
    vpc = found(resources, "aws:ec2/vpc:Vpc", "vpc-main") | {"provider": ""}
    assert [each.policy for each in pack.asks(vpc, {})] == ["tagged"]


def test_what_does_not_say_what_it_is_is_taken_for_production(pack: Pack, graphs: Callable[[str], Graph]) -> None:
    resources = graphs("dev")
    primary = found(resources, DATABASE, "rds-primary")
    assert pack.asks(primary, providers_of(resources)) == []
    heard = pack.asks(primary, providers_of(tagged(resources, {})))
    assert {each.policy for each in heard} == {"tagged", "database-survives"}


@pytest.mark.parametrize(
    "kind", ["aws:sqs/queue:Queue", "aws:iam/accessKey:AccessKey", "aws:secretsmanager/secretVersion:SecretVersion"]
)
def test_a_kind_that_nobody_thought_of_is_refused(kind: str, pack: Pack, graphs: Callable[[str], Graph]) -> None:
    resources = graphs("production")
    one = found(resources, "aws:ec2/vpc:Vpc", "vpc-main") | {"type": kind, "name": "new"}
    (heard,) = pack.asks(one, providers_of(resources))
    assert (heard.policy, heard.stops) == ("kinds-known", True)
    assert f"{kind} new: no policy knows this kind; write" in heard.message
