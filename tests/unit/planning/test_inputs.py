"""Stack files, recorded traffic and charts: what is wrong with them is named."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from smtp_proxy.errors import ConfigurationError
from smtp_proxy.planning import chart
from smtp_proxy.planning.message_costs import read_costs
from smtp_proxy.planning.prices import read_prices
from smtp_proxy.planning.simulation import Simulation
from smtp_proxy.planning.stack import load
from smtp_proxy.planning.traffic import profile, recorded


@pytest.mark.parametrize("environment", ["dev", "staging", "production"])
def test_every_environment_can_be_read_and_priced(environment: str) -> None:
    """SCALE-011: and has bounds."""
    stack, prices = load(None, environment), read_prices()
    assert {"submission", "submissions", "worker", "certs"} <= stack.services.keys()
    assert all(0 < each.min_tasks <= each.max_tasks for each in stack.services.values())
    assert prices.standing(stack) > 0
    assert stack.ready_depth_low < stack.ready_depth_high


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["worker.max_tasks"], "is not SECTION.KEY=VALUE"),
        (["worker.most=3"], "is not SECTION.KEY=VALUE"),
        (["worker.max_tasks=many"], "max_tasks: 'many' is no number"),
        (["worker.min_tasks=30"], "min_tasks 30 and max_tasks 10 do not go together"),
        (
            ["rds.max_allocated_storage=99"],
            "rds: allocated_storage 100 and max_allocated_storage 99 do not go together",
        ),
        (["worker.enabled=false"], "worker, and submission or submissions, must be enabled"),
        (["worker.cpu={"], "--stack"),
        (["worker.cpu=-1"], "cpu: -1 is no number of 0 or more"),
    ],
)
def test_changes_that_can_not_be(changes: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load(None, "production", changes)


def test_a_change_is_laid_over() -> None:
    assert load(None, "production", ["worker.max_tasks=99"]).services["worker"].max_tasks == 99


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "is no YAML"), ("a: 1", "has no `defaults`"), ("defaults: {}\nenvironments: {production: {}}", "has no")],
)
def test_a_file_that_is_not_the_stacks(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "stack.yaml"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=said):
        load(file, "production")
    with pytest.raises(ConfigurationError, match="--stack: can not read"):
        load(tmp_path / "none", "production")
    with pytest.raises(ConfigurationError, match="--environment: moon is none of dev, production, staging"):
        load(None, "moon")


def test_recorded_traffic_holds_until_the_next_line(tmp_path: Path) -> None:
    file = tmp_path / "mail.csv"
    file.write_text("seconds,per_second\n0,5\n60,7.5\n120,0\n")
    offered, last = recorded(file)
    assert [offered(at) for at in (-1, 0, 59.9, 60, 119, 120, 1e6)] == [0, 5, 5, 7.5, 7.5, 0, 0]
    assert last == 120


@pytest.mark.parametrize("wrong", ["", "0", "0,x", "0,-1", "0,1\n0,2", "0,nan", "0,1,2"])
def test_recorded_traffic_that_is_none(tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "mail.csv"
    file.write_text(wrong)
    with pytest.raises(ConfigurationError, match="--traffic"):
        recorded(file)


def test_profiles() -> None:
    spike = profile("spike", 10.0, times=10.0, spike_seconds=60.0)
    assert [spike(at) for at in (0, 599, 600, 659, 660)] == [10, 10, 100, 100, 10]
    day = profile("day", 10.0)
    assert day(12 * 3600) == pytest.approx(10)
    assert day(0) == pytest.approx(1)
    with pytest.raises(ConfigurationError, match="--profile: storm is none of steady, day, spike"):
        profile("storm", 1.0)


def test_a_chart_is_whole_and_asks_nobody() -> None:
    result = Simulation(load(None, "production"), read_costs(), read_prices(), profile("spike", 167.0)).run(3600)
    drawn = chart.picture(result.samples, "a <spike> & more")
    root = ET.fromstring(drawn)
    lines = root.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 4 + 1 + 3 + 1
    assert all(len(line.attrib["points"].split()) == 60 for line in lines)
    page = chart.page(result.samples, "a <spike>", ["1 < 2"])
    assert "&lt;spike&gt;" in page
    assert "1 &lt; 2" in page
    assert page.count("http") == page.count("http://www.w3.org/2000/svg")
    assert chart.picture([], "nothing").startswith("<svg")
