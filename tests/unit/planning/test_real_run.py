"""The simulation beside a run that was real: `make bench-scaling`, as recorded. REQ-INFRA-SCALE-005.

A change of the simulation, or of what it reckons with, that takes it away from what real workers did fails here; run
the benchmark anew to see which of them is right.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
WITHIN = 0.25


@pytest.fixture(scope="module")
def replay() -> Iterator[ModuleType]:
    """benches.load.replay: benchmarks are run from the checkout, and are not on the tests' path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(ROOT)])
        yield importlib.import_module("benches.load.replay")


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    newest = max((ROOT / "benches/results").glob("*-scaling.json"))
    found: dict[str, Any] = json.loads(newest.read_text())
    return found


def apart(replay: ModuleType, run: Any, recorded: dict[str, Any]) -> tuple[float, float]:
    """How far the highest backlog, and the time until it was gone, are from those of the real run, as shares."""
    samples = replay.simulated(run).samples
    expected = replay.shape([each.at for each in samples], [each.backlog for each in samples])
    times, backlog = zip(*recorded["backlog"], strict=True)
    real = replay.shape(times, backlog)
    return replay.difference(real.peak, expected.peak), replay.difference(real.gone_at, expected.gone_at)


def test_the_simulation_is_near_the_real_run(replay: ModuleType, recorded: dict[str, Any]) -> None:
    peak, gone = apart(replay, replay.Run(**recorded["run"]), recorded)
    assert peak < WITHIN
    assert gone < WITHIN


def test_the_real_run_was_scaled_as_the_simulation_says(replay: ModuleType, recorded: dict[str, Any]) -> None:
    """One, three, and one again; nothing was refused, and no worker failed."""
    run = replay.Run(**recorded["run"])
    steps = replay.script(replay.simulated(run), run.period)
    assert [list(step) for step in steps] == recorded["script"]
    counts = [count for _, count in steps]
    assert (counts[0], max(counts), counts[-1]) == (1, 3, 1)
    (figures,) = recorded["seen"].values()
    assert (figures["errors"], figures["workers_failed"]) == (0, 0)
    assert figures["accepted"] == pytest.approx(figures["simulated_accepted"], rel=0.02)


@pytest.mark.parametrize("change", [{"capacity": 0.5}, {"high": 1.5}, {"period": 2.0}], ids=str)
def test_another_simulation_would_not_be_near(
    change: dict[str, float], replay: ModuleType, recorded: dict[str, Any]
) -> None:
    """Workers of half the capacity, half as much mail again, metrics half as often: each is told apart."""
    run = replay.Run(**recorded["run"])
    other = replace(run, **{name: type(getattr(run, name))(getattr(run, name) * by) for name, by in change.items()})
    assert max(apart(replay, other, recorded)) > WITHIN


def test_the_chart_is_of_the_recorded_run(replay: ModuleType, recorded: dict[str, Any]) -> None:
    assert (ROOT / "docs/charts/real-run.svg").read_text() == replay.picture(recorded), (
        "python -m benches.load.replay RESULT.json > docs/charts/real-run.svg"
    )


def test_what_is_compared(replay: ModuleType) -> None:
    found = replay.shape([1, 2, 3, 4, 5], [10, 100, 50, 5, 0])
    assert (found.peak, found.peak_at, found.gone_at) == (100, 2, 4)
    assert replay.shape([1, 2], [1, 100]).gone_at is None
    assert replay.difference(None, 4) == replay.difference(4, None) == float("inf")
    assert replay.difference(5, 4) == 0.25
