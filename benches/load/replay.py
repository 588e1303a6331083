"""`python -m benches.load.replay RESULT.json`: a run of `benches.load.scaled` and the simulation of it, drawn as SVG.

The simulation of `smtp-proxy simulate` for a load and a stack so small that this machine can run them for real.

The stack is production's with a clock that runs faster: periods, delays and cooldowns of seconds instead of minutes,
and CPU adds no task: the backlog does. When there are how many workers is the simulation's own decision, which the
real run follows.
"""

from __future__ import annotations

import json
import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from smtp_proxy.planning import chart
from smtp_proxy.planning.message_costs import read_costs
from smtp_proxy.planning.prices import read_prices
from smtp_proxy.planning.simulation import Circumstances, Result, Simulation
from smtp_proxy.planning.stack import Stack, load

# Of its highest value, below which a backlog counts as gone: what is under way is always there.
_GONE = 0.05


@dataclass(frozen=True)
class Run:
    """What is run and what is simulated. Seconds, messages a second, messages."""

    capacity: float  # of one worker, as it was measured
    high: float
    low: float
    high_seconds: int
    seconds: int
    concurrency: int = 4
    per_task: float = 200.0  # of the backlog, what a worker shall have
    most_workers: int = 3
    period: int = 4  # of metrics; also their delay, and the time that a task takes to start

    def offered(self, at: float) -> float:
        return self.high if at < self.high_seconds else self.low

    def asdict(self) -> dict[str, float | int]:
        return asdict(self)


def stack(run: Run) -> Stack:
    """Production's, shrunk."""
    whole = load(None, "production")
    worker = replace(whole.services["worker"], min_tasks=1, max_tasks=run.most_workers, per_task=run.per_task)
    scaling = replace(
        whole.scaling,
        metric_period=run.period,
        metric_delay=run.period,
        task_start=run.period,
        cpu_out_percent=101.0,
        out_cooldown=run.period,
        in_cooldown=run.period,
        worker_in_cooldown=run.period,
    )
    return replace(whole, services={**whole.services, "worker": worker}, scaling=scaling)


def simulated(run: Run) -> Result:
    """The simulation's answer."""
    around = Circumstances(
        session_seconds=1.0, delivery_seconds=run.concurrency / run.capacity, worker_concurrency=run.concurrency
    )
    return Simulation(stack(run), read_costs(), read_prices(), run.offered, around).run(run.seconds)


def script(result: Result, period: int) -> list[tuple[int, int]]:
    """When there are how many workers: seconds since the beginning, and their number."""
    steps = [(0, 1)]
    for sample in result.samples:
        if sample.tasks["worker"] != steps[-1][1]:
            steps.append((int(sample.at) - period, sample.tasks["worker"]))
    return steps


@dataclass(frozen=True)
class Shape:
    """Of a backlog over time what is compared: messages, and seconds since the beginning."""

    peak: float
    peak_at: float
    gone_at: float | None  # when it was gone again; None: it was not


def shape(times: Sequence[float], backlog: Sequence[float]) -> Shape:
    peak = max(backlog)
    at = backlog.index(peak)
    gone = next((time for time, left in zip(times[at:], backlog[at:], strict=True) if left <= _GONE * peak), None)
    return Shape(peak, times[at], gone)


def difference(real: float | None, expected: float | None) -> float:
    """As a share of what was expected; without one of the two there is nothing to be near to."""
    if real is None or not expected:
        return float("inf")
    return abs(real - expected) / expected


def picture(recorded: dict[str, Any]) -> str:
    """A recorded run as a whole SVG: what waited, beside what the simulation says, and how many workers there were."""
    samples = simulated(Run(**recorded["run"])).samples
    times = [sample.at for sample in samples]
    looked = [float(at) for at, _ in recorded["backlog"]]
    last = len(looked) - 1
    real = [float(recorded["backlog"][min(bisect_left(looked, at), last)][1]) for at in times]
    waiting = {"real": real, "simulated": [sample.backlog for sample in samples]}
    workers = {"workers": [float(sample.tasks["worker"]) for sample in samples]}
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="860" height="400" viewBox="0 0 860 400" '
        'font-family="sans-serif" font-size="12" role="img" aria-label="A real run beside its simulation">',
        '<rect width="860" height="400" fill="white"/>',
        chart.svg("backlog, messages", times, waiting),
        chart.svg("running workers", times, workers, 200),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    print(picture(json.loads(Path(sys.argv[1]).read_text())), end="")
