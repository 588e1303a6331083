"""docs/CAPACITY.md: its charts and figures are what the simulation says of today's stack.yaml."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from capacity_charts import COMMANDS, DRAWN, SCALE_IN
from fix_shell import Shell

DOCUMENT = (DRAWN.parent / "CAPACITY.md").read_text()
LARGER_WORKER = ("worker.cpu=1024", "worker.memory=2048", "worker.min_tasks=2")


def changes(*changes: str) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


def simulated(shell: Shell, *options: str) -> dict[str, Any]:
    shell("simulate", *options, "--json")
    found: dict[str, Any] = json.loads(shell.out)
    return found


def row(command: str) -> str:
    """What the document says came out of a command."""
    (found,) = re.findall(rf"^\|[^|]*\| `?{re.escape(command)}`? \| (.*) \|$", DOCUMENT, re.MULTILINE)
    return str(found)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_chart_is_drawn_of_this_simulation(name: str, shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "it.svg"
    assert shell("simulate", *COMMANDS[name], "--chart", str(file)) == 0
    assert file.read_text() == (DRAWN / f"{name}.svg").read_text(), "`make charts` draws it anew"
    assert f"(charts/{name}.svg)" in DOCUMENT


def test_every_chart_is_drawn_of_something() -> None:
    """That of the real run is held to it by test_real_run."""
    assert {file.stem for file in DRAWN.glob("*.svg")} == {*COMMANDS, "real-run"}


def test_the_least_there_is_bears_the_floor(shell: Shell) -> None:
    came = simulated(shell, *COMMANDS["steady"])
    assert came["most_tasks"] == {"submission": 2, "submissions": 2, "worker": 1}
    assert (came["refused"], came["most_backlog"]) == (0, 0)
    assert "(2 + 2 SMTP tasks, 1 worker) bears it" in row("simulate --profile steady")


def test_the_spike(shell: Shell) -> None:
    said, came = row("simulate --profile spike"), simulated(shell, *COMMANDS["spike"])
    assert f"the backlog reaches {came['most_backlog']:,.0f}, {100 * came['refused_share']:.1f} % hear 421" in said
    assert f"the longest wait is {came['longest_wait']:.0f} s" in said
    assert came["first_scaled_out_at"] == 600 + 240
    assert "The first additional task runs 240 s after the load came" in row("any")
    larger = simulated(shell, *COMMANDS["spike"], *changes(*LARGER_WORKER))
    assert (larger["refused"], larger["most_backlog"]) == (0, 0)
    more = _month(shell, *changes(*LARGER_WORKER)) - _month(shell)
    assert f"With `{' '.join(changes(*LARGER_WORKER))}` nothing is refused" in said
    assert f"that is {more:.0f} $ a month more" in said


def test_scaling_in(shell: Shell) -> None:
    said = row("simulate --traffic docs/charts/fall.csv --session-seconds 900")
    protected, cut = simulated(shell, *SCALE_IN), simulated(shell, *SCALE_IN, "--unprotected")
    assert (protected["refused"], protected["dropped_sessions"]) == (0, 0)
    assert f"{100 * (protected['dollars'] / cut['dollars'] - 1):.0f} % more money" in said
    assert f"`--unprotected`: {cut['dropped_sessions']:,.0f} are" in said
    spike = simulated(shell, *COMMANDS["spike"], "--unprotected")
    assert spike["most_tasks"]["submission"] > spike["samples"][-1]["tasks"]["submission"]
    assert spike["dropped_sessions"] == 0


def test_the_internet(shell: Shell) -> None:
    came = simulated(shell, *COMMANDS["internet"])
    assert f"has {100 * came['refused_share']:.0f} % refused in the minutes until they are there" in DOCUMENT
    assert shell("plan", "--per-minute", "10000000") == 1
    assert "it wants 11,950 connections, where none has more than 5,000" in shell.err
    assert "would want 11,950 connections to one database, where no class has more than 5,000" in DOCUMENT


def _month(shell: Shell, *options: str) -> float:
    return float(shell.json("plan", *options)["dollars_per_month_total"])
