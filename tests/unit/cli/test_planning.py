"""`smtp-proxy plan` and `smtp-proxy simulate`."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from fix_shell import Shell
from jsonschema import Draft202012Validator

SVG = "{http://www.w3.org/2000/svg}"
# So that storage is no bound.
BRIEFLY = ("--retention-days", "0.01")
NUMBERS = {"type": "object", "additionalProperties": {"type": "number"}}
PLAN = {
    "type": "object",
    "required": [
        "tasks",
        "stream_shards",
        "database",
        "fargate_vcpu",
        "fargate_vcpu_deploying",
        "dollars_per_month",
        "dollars_per_month_total",
        "problems",
        "note",
    ],
    "properties": {
        "tasks": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 1}},
        "stream_shards": {"type": "integer", "minimum": 1},
        "database": {"type": "string"},
        "dollars_per_month": NUMBERS,
        "dollars_per_month_total": {"type": "number"},
        "problems": {"type": "array", "items": {"type": "string"}},
        "warnings": {"type": "array", "items": {"type": "string"}},
    },
}
SAMPLE = {
    "type": "object",
    "required": ["at", "offered", "accepted", "refused", "delivered", "backlog", "tasks", "dollars_per_hour"],
    "properties": {"tasks": {"type": "object", "additionalProperties": {"type": "integer"}}},
}
RUN = {
    "type": "object",
    "required": ["samples", "offered", "accepted", "refused", "delivered", "backlog", "refused_share", "failures"],
    "properties": {"samples": {"type": "array", "items": SAMPLE}, "failures": {"type": "array"}},
}


def test_a_plan(shell: Shell) -> None:
    assert shell("plan") == 0
    assert "tasks: submission" in shell.out
    assert "25.25 vCPU, 35.25 while the largest service is deployed; quota L-3032A538" in " ".join(shell.out.split())
    assert "list prices of" in shell.out
    made = shell.json("plan", "--per-minute", "60000", "--growth-percent", "10", "--months", "12", *BRIEFLY)
    Draft202012Validator(PLAN).validate(made)
    assert made["load"]["peak"] > 3000


def test_mail_that_the_stack_has_no_storage_for_is_impossible(shell: Shell) -> None:
    assert shell("plan", "--set", "rds.max_allocated_storage=500") == 1
    assert "impossible: 1,174 GiB of mail are kept for 30 days, and rds.max_allocated_storage is 500" in shell.err


def test_a_plan_is_drawn_up_to_twice_the_load(shell: Shell, tmp_path: Path) -> None:
    """Issue 7: table, JSON, plot. What is drawn is what the command says of that load."""
    drawn = tmp_path / "plan.svg"
    assert shell("plan", "--per-minute", "60000", *BRIEFLY, "--chart", str(drawn)) == 0
    picture = ElementTree.fromstring(drawn.read_text())
    said = [str(text.text) for text in picture.iter(f"{SVG}text")]
    assert said[0] == "up to 120,000 messages a minute"
    assert {"submission", "submissions", "worker", "connections", "storage", "all of it"} <= set(said)
    lines = [line.attrib["points"].split() for line in picture.iter(f"{SVG}polyline")]
    assert {len(points) for points in lines} == {41}
    heights = [float(point.partition(",")[2]) for point in lines[said_of(picture, "worker")]]
    assert heights == sorted(heights, reverse=True), "more mail never wants fewer workers"
    once, twice = (
        shell.json("plan", "--per-minute", rate, *BRIEFLY)["tasks"]["worker"] for rate in ("60000", "120000")
    )
    assert (174 - heights[40]) / (174 - heights[20]) == pytest.approx(twice / once, rel=0.01)
    assert twice > once > 1
    assert shell("plan", "--chart", str(tmp_path / "plan.png")) not in (0, 1)
    assert "write a name that ends with .svg or .html" in shell.err


def said_of(picture: ElementTree.Element, name: str) -> int:
    """Which of the lines has this name: their names come in the same order."""
    named = [str(text.text) for text in picture.iter(f"{SVG}text") if text.attrib.get("fill")]
    return named.index(name)


def test_a_drawing_says_from_where_on_a_load_can_not_be_had(shell: Shell, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    assert shell("plan", "--per-minute", "10000000", *BRIEFLY, "--chart", str(page)) == 1
    found = re.search(
        r"<title>up to 20,000,000 messages a minute; impossible from ([\d,]+) on</title>", page.read_text()
    )
    assert found
    first = int(found[1].replace(",", ""))
    assert 0 < first <= 10_000_000
    assert shell("plan", "--per-minute", str(first), *BRIEFLY) == 1
    assert shell("plan", "--per-minute", str(first - 500_000), *BRIEFLY) == 0
    assert "<li>asked for: 10,000,000 a minute</li>" in page.read_text()


def test_a_plan_with_the_web(shell: Shell) -> None:
    """By default what the API's two tasks bear, a thousand requests a minute each: 0.4 units of 0.8 cents."""
    web = ("--set", "alb.enabled=true", "--set", "api.enabled=true")
    made, quiet = shell.json("plan", *web), shell.json("plan", *web, "--web-per-minute", "0")
    assert made["tasks"]["api"] == quiet["tasks"]["api"] == 2
    more = made["dollars_per_month"]["load balancers"] - quiet["dollars_per_month"]["load balancers"]
    assert abs(more - 730 * 0.4 * 0.008) < 1e-9
    assert shell.json("plan", *web, "--web-per-minute", "2001")["tasks"]["api"] == 3
    assert shell("plan", *web) == 0
    assert "33 and 10 requests a second" in shell.out


def test_what_can_not_be_ends_with_1(shell: Shell) -> None:
    assert shell("plan", "--set", "rds.instance_class=db.t4g.medium", "--set", "rds.max_connections=1200") == 1
    assert "impossible: rds.max_connections is 1,200" in shell.err
    assert shell("plan", "--environment", "moon") not in (0, 1)
    assert "--environment: moon" in shell.err


def test_a_simulation_and_its_thresholds(shell: Shell, tmp_path: Path) -> None:
    """REQ-INFRA-SCALE-007: mail that hears 421 is counted, and may be too much."""
    ran = shell.json("simulate", "--profile", "steady", "--minutes", "10")
    Draft202012Validator(RUN).validate(ran)
    assert len(ran["samples"]) == 10
    drawn = tmp_path / "spike.html"
    assert shell("simulate", "--chart", str(drawn), "--max-refused", "0.001", "--max-backlog", "1e9") == 1
    assert "--max-refused: " in shell.err
    assert "--max-backlog" not in shell.err
    assert drawn.read_text().startswith("<!doctype html>")
    assert (
        shell("simulate", "--profile", "steady", "--minutes", "5", "--max-refused", "0", "--max-wait-seconds", "0") == 0
    )


def test_recorded_traffic(shell: Shell, tmp_path: Path) -> None:
    mail = tmp_path / "mail.csv"
    mail.write_text("0,10\n600,20\n1200,0\n")
    ran = shell.json("simulate", "--traffic", str(mail))
    assert ran["offered"] == 600 * 10 + 600 * 20
    assert shell("simulate", "--chart", str(tmp_path / "x.png")) not in (0, 1)
    assert ".svg or .html" in shell.err
