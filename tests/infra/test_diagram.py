"""docs/aws.svg is drawn from the graph, and is what the graph is now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from fix_infra import ROOT
from infra_graph.canonical import Resource
from infra_graph.diagram import NoPlace, draw
from infra_graph.reading import WORLD, Flow, half_open, read

# As in test_parity.py: the first test waits for what the fixture renders.
pytestmark = pytest.mark.timeout(600)

Side = Callable[[str], list[Resource]]
DRAWING = ROOT / "docs/aws.svg"


def words(svg: str) -> str:
    return " ".join(
        "".join(each.itertext()) for each in ElementTree.fromstring(svg).iter() if each.tag.endswith("text")
    )


def test_the_drawing_is_that_of_the_stack(production: Side) -> None:
    assert DRAWING.read_text() == draw(production("pulumi")), "the stack is another one by now: make diagram, and look"


def test_both_sides_draw_the_same(production: Side) -> None:
    assert draw(production("terraform")) == draw(production("pulumi"))


def test_who_reaches_whom(production: Side, switched: Side) -> None:
    """Nothing but the load balancers hears the world, and nothing but tasks reaches what is stored."""
    for stack in (read(production("pulumi")), read(switched("pulumi"))):
        assert {flow.target for flow in stack.flows if flow.source == WORLD} == {"nlb", "alb"}
        assert Flow("nlb", "smtp", (2465, 2587, 8081)) in stack.flows
        assert Flow("worker", WORLD, (25, 443, 465, 587)) in stack.flows
        reaching = {flow.source for flow in stack.flows if flow.target == "database"}
        assert reaching == {"smtp", "api", "worker", "certs"}
        assert "dashboard" not in {flow.source for flow in stack.flows if flow.target in ("database", "cache")}


def test_every_rule_between_two_groups_is_at_both_ends(production: Side) -> None:
    """One end alone lets nothing through, and says that somebody meant it to."""
    resources = production("pulumi")
    assert half_open(resources) == []
    one_end = [each for each in resources if each.name != "aws_vpc_security_group_ingress_rule vpc-rule-cache-worker"]
    assert half_open(one_end) == ["worker to cache: 6379"]


def test_what_is_switched_on_is_drawn(production: Side, switched: Side) -> None:
    off, on = words(draw(production("pulumi"))), words(draw(switched("pulumi")))
    explained = 1  # below the title
    assert off.count("switched off") == explained + len(("alb", "api", "dashboard"))
    assert on.count("switched off") == explained
    for name in ("Application load balancer", "dashboard", "RDS Proxy", "Redis 7.1"):
        assert name in on


def test_another_graph_is_another_drawing(production: Side) -> None:
    """A port, a size and a number of tasks: what a reader would be told wrong."""
    resources = production("pulumi")
    drawn = draw(resources)
    for name, argument, value in (
        ("aws_vpc_security_group_ingress_rule vpc-rule-nlb-http", "from_port", "8000"),
        ("aws_db_instance rds-primary", "instance_class", "db.t4g.small"),
        ("aws_appautoscaling_target ecs-main-worker", "max_capacity", "11"),
    ):
        assert name in {each.name for each in resources}
        changed = [
            replace(each, arguments={**each.arguments, argument: value}) if each.name == name else each
            for each in resources
        ]
        assert draw(changed) != drawn, name


def test_a_group_without_a_place_is_told(production: Side) -> None:
    new = Resource("aws_security_group", "vpc-role-mail", {}, frozenset())
    with pytest.raises(NoPlace, match="PLACES has no mail"):
        draw([*production("pulumi"), new])
