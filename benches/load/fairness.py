"""`python -m benches.load.fairness`: what one tenant's flood does to another's latency.

A victim (tenant B) sends a little, as an open model: each message is due at its time, and its latency counts from
then. Beside it tenant A does nothing, or sends as little as B from as many connections (a fair neighbour), or floods
from many connections; then A floods with large messages, and floods under a rate limit. The runs take turns, several
rounds of them; what is shown are medians.

On a small machine the flood, the server, Postgres and both load generators share the cores, so part of every ratio is
plain contention for the processor. The last column helps to tell: it is how late
a thread wakes that only sleeps, beside the same flood.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benches.load import generator, machine
from benches.load.generator import Load, Target
from benches.load.ours import Ours
from benches.load.processes import ROOT

_FLOOD_LEAD_SECONDS = 1.0
_SLEEP_SECONDS = 0.005


@dataclass(frozen=True)
class Neighbour:
    """What tenant A does meanwhile. `limit`: messages per minute."""

    name: str
    load: Load | None
    limit: int | None = None


def neighbours(connections: int, seconds: float, rate: float, connections_of_victim: int) -> list[Neighbour]:
    flood = Load(connections, seconds + 2 * _FLOOD_LEAD_SECONDS, warmup_seconds=0)
    large = replace(flood, size_bytes=1024 * 1024, connections=max(1, connections // 4))
    return [
        Neighbour("alone", None),
        Neighbour("fair neighbour", replace(flood, connections=connections_of_victim, rate=rate)),
        Neighbour(f"flood, {connections} connections", flood),
        Neighbour(f"flood of 1 MiB, {large.connections} connections", large),
        Neighbour(f"flood, {connections} connections, limited to 600/min", flood, limit=600),
    ]


class Tenants:
    """A and B of one `smtp-proxy dev`, each with a login."""

    def __init__(self, ours: Ours) -> None:
        self._ours = ours
        self._environment = {**os.environ, **ours.database(), "REDIS_URL": ours.redis_url()}
        self.flooder, self.victim = self._tenant("flooder"), self._tenant("victim")

    def limit(self, messages_per_minute: int | None) -> None:
        given = "none" if messages_per_minute is None else str(messages_per_minute)
        self._run("tenant", "limits", "flooder", "--messages-per-minute", given)
        time.sleep(0.3)  # heard by notification

    def _tenant(self, name: str) -> Target:
        self._run("tenant", "create", name)
        password = f"password of {name}"
        self._run("credential", "create", name, name, "--password-stdin", given=password)
        return self._ours.login_target(name, password)

    def _run(self, *arguments: str, given: str = "") -> None:
        command = [sys.executable, "-m", "smtp_proxy", *arguments]
        subprocess.run(
            command,
            input=given + "\n",
            env=self._environment,
            cwd=ROOT,
            check=True,
            text=True,
            stdout=subprocess.DEVNULL,
        )


@contextmanager
def flooding(command: Path, target: Target, neighbour: Neighbour, result: dict[str, Any]) -> Iterator[None]:
    """Tenant A at work, from a little before until the end."""
    if neighbour.load is None:
        yield
        return
    load = neighbour.load
    thread = threading.Thread(target=lambda: result.update(generator.run(command, target, load)))
    thread.start()
    time.sleep(_FLOOD_LEAD_SECONDS)
    try:
        yield
    finally:
        thread.join()


@contextmanager
def waking(late_ms: list[float]) -> Iterator[None]:
    """A thread that only sleeps and looks how late it wakes: what the processor alone costs the victim."""
    stop = threading.Event()

    def sleep() -> None:
        while not stop.is_set():
            due = time.perf_counter() + _SLEEP_SECONDS
            time.sleep(_SLEEP_SECONDS)
            late_ms.append((time.perf_counter() - due) * 1000)

    thread = threading.Thread(target=sleep)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def measure(command: Path, ours: Ours, tenants: Tenants, neighbour: Neighbour, victim: Load) -> dict[str, float]:
    ours.clean()
    tenants.limit(neighbour.limit)
    flood: dict[str, Any] = {}
    late_ms: list[float] = []
    with flooding(command, tenants.flooder, neighbour, flood), waking(late_ms):
        seen = generator.run(command, tenants.victim, victim)
    latency = seen["latency"]["from_due"]
    return {
        "p50_ms": latency["p50_ms"],
        "p99_ms": latency["p99_ms"],
        "messages": seen["accepted_total"],
        "errors": seen["errors_total"],
        "flood_per_second": flood.get("messages_per_second", 0.0),
        "wakes_late_p99_ms": statistics.quantiles(late_ms, n=100)[98],
    }


def medians(rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    names = rounds[0]
    return {
        name: {key: statistics.median(measured[name][key] for measured in rounds) for key in names[name]}
        for name in names
    }


def show(result: Mapping[str, Mapping[str, float]], console: Console) -> None:
    table = Table(title="latency of the victim, from when each message was due", title_justify="left")
    for column in ("beside it", "p50 ms", "p99 ms", "p99 / alone", "flood msg/s", "wakes late p99 ms"):
        table.add_column(column, justify="left" if column == "beside it" else "right")
    alone = result["alone"]["p99_ms"]
    for name, seen in result.items():
        cells = [seen["p50_ms"], seen["p99_ms"], seen["p99_ms"] / alone]
        table.add_row(
            name,
            *(f"{cell:.2f}" for cell in cells),
            f"{seen['flood_per_second']:,.0f}",
            f"{seen['wakes_late_p99_ms']:.2f}",
        )
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benches.load.fairness", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--connections", type=int, default=200, help="of the flood")
    parser.add_argument("--rate", type=float, default=20.0, help="the victim's messages per second")
    parser.add_argument("--output", type=Path, help="JSON; default benches/results/<date>-fairness.json")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="on the disk to be measured, not in memory")
    options = parser.parse_args(arguments)
    victim = Load(connections=4, seconds=options.seconds, warmup_seconds=1.0, rate=options.rate)
    plan = neighbours(options.connections, options.seconds + 1.0, options.rate, victim.connections)
    console = Console(width=None if sys.stdout.isatty() else 160)
    folder = Path(tempfile.mkdtemp(prefix="smtp-proxy-fair-", dir=options.work))
    folder.chmod(0o755)
    ours = Ours.accepting(folder)
    try:
        command = generator.build()
        ours.start()
        tenants = Tenants(ours)
        about = machine.describe({"smtp-proxy": ours.version()}, folder)
        rounds = [
            _round(lambda each: measure(command, ours, tenants, each, victim), plan, n, console)
            for n in range(options.rounds)
        ]
    finally:
        ours.stop()
        shutil.rmtree(folder, ignore_errors=True)
    result = medians(rounds)
    show(result, console)
    path = options.output or ROOT / f"benches/results/{datetime.now(UTC):%Y-%m-%d-%H%M}-fairness.json"
    path.write_text(json.dumps({"about": about, "medians": result, "rounds": rounds}, indent=1) + "\n")
    console.print(f"written to {path}")
    return 0


def _round(
    measured: Callable[[Neighbour], dict[str, float]], plan: Sequence[Neighbour], number: int, console: Console
) -> dict[str, dict[str, float]]:
    """There and back again, so that what drifts hits all alike."""
    seen = {}
    for neighbour in plan if number % 2 == 0 else list(reversed(plan)):
        seen[neighbour.name] = measured(neighbour)
        numbers = "  ".join(f"{key} {value:,.2f}" for key, value in seen[neighbour.name].items())
        console.print(f"round {number + 1}  {neighbour.name:48} {numbers}")
    return {neighbour.name: seen[neighbour.name] for neighbour in plan}


if __name__ == "__main__":
    sys.exit(main())
