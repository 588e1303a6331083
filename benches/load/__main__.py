"""`python -m benches.load`: the whole comparison in one command; see benches/README.md."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benches.load import end_to_end, generator, machine, summary, table
from benches.load.generator import Load
from benches.load.measure import Limit, Measurement, Row, under_load, without_smtp
from benches.load.ours import Ours
from benches.load.peers import Aiosmtpd, Peer, Unavailable
from benches.load.postfix import Postfix
from benches.load.processes import ROOT
from benches.load.summary import CHECKS, Check, Verdict

RESULTS = ROOT / "benches/results"
_IDLE_PER_SECOND = 20.0


@dataclass(frozen=True)
class Plan:
    """How long; see the options."""

    rounds: int
    seconds: float
    connections: Sequence[int]
    end_to_end: end_to_end.Size | None
    only: str
    options: tuple[str, ...]
    committers: int = 2  # as the setting ingress_committers


@dataclass
class Servers:
    """What runs; a peer that can not run here is missing, with the reason in `skipped`."""

    durable: Ours
    discarding: Ours
    peers: list[Peer] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    plan = _plan(options)
    console = Console(width=None if sys.stdout.isatty() else 160)
    folder = Path(tempfile.mkdtemp(prefix="smtp-proxy-bench-", dir=options.work))
    folder.chmod(0o755)
    try:
        result, verdicts = _run(plan, generator.build(), folder, console)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    table.show(result, verdicts, console)
    path = options.output or RESULTS / f"{datetime.now(UTC):%Y-%m-%d-%H%M}-load.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    console.print(f"written to {path}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches.load", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="about a minute: fewer, shorter rounds; no verdicts to trust"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement, after a second of warm-up")
    parser.add_argument("--connections", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--only", default="", help="rows whose name holds this; verdicts need the others as well")
    parser.add_argument("--pipelining", action="store_true", help="where a server offers it; most clients do not")
    parser.add_argument("--no-end-to-end", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON; default benches/results/<date>-load.json")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="on the disk to be measured, not in memory")
    return parser.parse_args(arguments)


def _plan(options: argparse.Namespace) -> Plan:
    rounds, seconds, size = options.rounds, options.seconds, end_to_end.Size(seconds=30, burst=10_000)
    if options.quick:
        rounds, seconds, size = 1, 1.5, end_to_end.Size(seconds=5, burst=2_000)
    return Plan(
        rounds=rounds,
        seconds=seconds,
        connections=options.connections,
        end_to_end=None if options.no_end_to_end else size,
        only=options.only,
        options=("--pipelining",) if options.pipelining else (),
    )


def _run(plan: Plan, command: Path, folder: Path, console: Console) -> tuple[dict[str, Any], list[Verdict]]:
    began = time.monotonic()
    with _servers(folder) as servers:
        about = machine.describe(_versions(servers), folder)
        rows = [row for row in _rows(plan, command, servers) if plan.only in row.name]
        rounds = [_round(rows, number, console) for number in range(plan.rounds)]
        whole = end_to_end.measure(command, folder, servers.discarding, plan.end_to_end) if plan.end_to_end else {}
    verdicts = [Verdict.of(check, rounds) for check in CHECKS] + [_queue_verdict(whole)]
    return {
        "about": about | {"took_seconds": round(time.monotonic() - began), "seconds_per_run": plan.seconds},
        "rows": summary.medians(rounds),
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "end_to_end": whole,
        "skipped": servers.skipped,
        "rounds": [[row.asdict() for row in measured.values()] for measured in rounds],
    }, verdicts


@contextmanager
def _servers(folder: Path) -> Iterator[Servers]:
    with ExitStack() as running:
        servers = Servers(Ours.accepting(folder), Ours.discarding(folder))
        for ours in (servers.durable, servers.discarding):
            running.callback(ours.stop)
            ours.start()
        for peer in (Postfix(folder, tuned=False), Postfix(folder, tuned=True), Aiosmtpd()):
            running.callback(peer.stop)
            try:
                peer.start()
            except Unavailable as reason:
                servers.skipped.append(f"{peer.name}: {reason}")
            else:
                servers.peers.append(peer)
        yield servers


def _versions(servers: Servers) -> dict[str, str]:
    postgres = servers.durable.sql("SHOW server_version")[0][0]
    ours = {"smtp-proxy": servers.durable.version(), "postgres": postgres}
    return ours | {peer.name: peer.version() for peer in servers.peers}


def _rows(plan: Plan, command: Path, servers: Servers) -> Iterator[Row]:
    """Ours and its rivals next to each other, so that the machine is the same for both."""
    durable = servers.durable
    for connections in plan.connections:
        load = Load(connections, plan.seconds, options=plan.options)
        yield under_load(f"ours durable {connections}", command, durable, durable.target, load)
        for peer in servers.peers:
            yield under_load(f"{peer.name} {connections}", command, peer, peer.target, load)
        name = f"limit {connections}"
        yield without_smtp(name, durable, Limit(connections, plan.committers, plan.seconds))
        # With C committers and N clients that wait for their answers, no more than N/C can be in each batch.
        fair = Limit(connections // plan.committers, plan.committers, plan.seconds)
        yield without_smtp(f"{name}, as many in flight", durable, fair)
        yield under_load(f"ours TLS AUTH {connections}", command, durable, durable.login_target, load)
        discarding = servers.discarding
        yield under_load(f"ours accept-only {connections}", command, discarding, discarding.target, load)
    idle = Load(1, plan.seconds, rate=_IDLE_PER_SECOND)
    yield under_load("ours idle", command, durable, durable.target, idle)
    yield without_smtp("limit idle", durable, Limit(1, 1, plan.seconds, batches_per_second=_IDLE_PER_SECOND))


def _round(rows: Sequence[Row], number: int, console: Console) -> dict[str, Measurement]:
    """Every row once, there and back again: what drifts during a run hits all alike."""
    measured = {}
    for row in rows if number % 2 == 0 else reversed(rows):
        row.clean()
        os.sync()
        seen = measured[row.name] = row.measure()
        cost = seen.cpu_seconds_per_1000["total"]
        console.print(
            f"round {number + 1}  {row.name:32} {seen.messages_per_second:8,.0f}/s  {cost:.3f} CPU-s per 1,000"
        )
        if seen.errors:
            console.print(f"         errors: {seen.errors}")
    return measured


def _queue_verdict(whole: dict[str, dict[str, Any]]) -> Verdict:
    check = Check(
        "queue latency p99 at 170 msg/s, ms",
        lambda _: float(whole["queue latency to the built-in sink"]["queue_p99_ms"]),
        1000,
        at_least=False,
    )
    return Verdict.of(check, [{}])


if __name__ == "__main__":
    sys.exit(main())
