"""What every kind of measurement shares: its options, its folder, its rounds, its files of results."""

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
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benches.load import machine, markdown, summary, table
from benches.load.measure import Measurement, Row
from benches.load.ours import Ours
from benches.load.peers import Peer, Unavailable
from benches.load.processes import ROOT
from benches.load.summary import Verdict

RESULTS = ROOT / "benches/results"
_QUICK_SECONDS = 1.5


class Bench:
    """One run of one kind: servers are started with it and end with it."""

    def __init__(self, kind: str, options: argparse.Namespace, folder: Path, running: ExitStack) -> None:
        self.kind = kind
        self.options = options
        self.folder = folder
        self.rounds = 1 if options.quick else options.rounds
        self.seconds = min(_QUICK_SECONDS, options.seconds) if options.quick else options.seconds
        self.console = Console(width=None if sys.stdout.isatty() else 160)
        self.skipped: list[str] = []
        self.versions: dict[str, str] = {}
        self._running = running
        self._began = time.monotonic()

    def ours(self, server: Ours) -> Ours:
        """Start ours; without it there is nothing to measure."""
        self._running.callback(server.stop)
        server.start()
        self.versions["smtp-proxy"] = server.version()
        self.versions.setdefault("postgres", server.sql("SHOW server_version")[0][0])
        return server

    def peers(self, *wanted: Peer) -> list[Peer]:
        """Start what can run here, and note why the others can not."""
        started = []
        for peer in wanted:
            self._running.callback(peer.stop)
            try:
                peer.start()
            except Unavailable as reason:
                self.skipped.append(f"{peer.name}: {reason}")
            else:
                self.versions[peer.name] = peer.version()
                started.append(peer)
        return started

    def in_turn(self, rows: Sequence[Row]) -> list[summary.Round]:
        """Every row once a round, there and back again: what drifts during a run hits all alike."""
        chosen = [row for row in rows if self.options.only in row.name]
        return [self._round(chosen, number) for number in range(self.rounds)]

    def _round(self, rows: Sequence[Row], number: int) -> dict[str, Measurement]:
        measured = {}
        for row in rows if number % 2 == 0 else reversed(rows):
            row.clean()
            os.sync()
            seen = measured[row.name] = row.measure()
            cost = seen.cpu_seconds_per_1000["total"]
            self.console.print(
                f"round {number + 1}  {row.name:38} {seen.messages_per_second:8,.0f}/s  {cost:.3f} CPU-s per 1,000"
            )
            if seen.errors:
                self.console.print(f"         errors: {seen.errors}")
        return measured

    def about(self, method: str = machine.METHOD) -> dict[str, Any]:
        """Machine, versions and method; before the load, for its load average."""
        return machine.describe(self.versions, self.folder) | {"method": method, "seconds_per_run": self.seconds}

    def finish(self, about: dict[str, Any], verdicts: Sequence[Verdict], **parts: Any) -> None:
        """Tell, and write JSON with a page of Markdown beside it. `parts`: `rows`, `seen` and what else there is."""
        about = about | {"took_seconds": round(time.monotonic() - self._began)}
        result = {"about": about, "rows": {}, "seen": {}, **parts}
        result |= {"verdicts": [asdict(verdict) for verdict in verdicts], "skipped": self.skipped}
        table.show(result, verdicts, self.console)
        path = self.options.output or RESULTS / f"{datetime.now(UTC):%Y-%m-%d-%H%M}-{self.kind}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        page = path.with_suffix(".md")
        page.write_text(markdown.page(self.kind, path.name, result))
        self.console.print(f"written to {path} and {page.name}")


def parser(module: str, about: str | None) -> argparse.ArgumentParser:
    """The options of every kind."""
    made = argparse.ArgumentParser(prog=f"python -m benches.{module}", description=about)
    made.add_argument("--quick", action="store_true", help="one short round, to see that it runs; no verdicts to trust")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--seconds", type=float, default=4.0, help="of each measurement, after a second of warm-up")
    made.add_argument("--only", default="", help="rows whose name holds this; verdicts need the others as well")
    made.add_argument("--output", type=Path, help="JSON; default benches/results/<date>-<kind>.json")
    made.add_argument("--work", type=Path, default=Path("/var/tmp"), help="on the disk to be measured, not in memory")
    return made


@contextmanager
def bench(kind: str, options: argparse.Namespace) -> Iterator[Bench]:
    """A bench in a folder of its own; at the end all that it started has ended and the folder is gone."""
    folder = Path(tempfile.mkdtemp(prefix="smtp-proxy-bench-", dir=options.work))
    folder.chmod(0o755)
    try:
        with ExitStack() as running:
            yield Bench(kind, options, folder, running)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def parts(rounds: Sequence[summary.Round]) -> dict[str, Any]:
    """Medians, and every round as it was."""
    return {
        "rows": summary.medians(rounds),
        "rounds": [[row.asdict() for row in measured.values()] for measured in rounds],
    }
