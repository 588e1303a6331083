"""One measurement: load on, CPU and latency off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from benches.load import cpu, generator
from benches.load.generator import Load, Target
from benches.load.ours import Ours
from benches.load.peers import Peer
from benches.load.processes import ROOT


@dataclass(frozen=True)
class Measurement:
    """What one row was in one round."""

    row: str
    messages_per_second: float
    cpu_seconds_per_1000: dict[str, float]  # by group of processes, and `total` of what serves
    p50_ms: float  # from the final dot to 250; for the limit: of a commit
    p99_ms: float
    transaction_p50_ms: float
    transaction_p99_ms: float
    handshake_p50_ms: float  # TLS; 0 without
    handshake_p99_ms: float
    generator_cpu_us: float  # of the generator's own CPU per message
    errors: dict[str, int]
    kept: int | None  # messages found in the server's store afterwards; None: it keeps none
    accepted: int

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    measure: Callable[[], Measurement]
    clean: Callable[[], None]


def per_1000(used: dict[str, float], messages: int) -> dict[str, float]:
    """CPU seconds per 1,000 messages by group, with `total`."""
    each = {name: 1000 * seconds / max(1, messages) for name, seconds in used.items()}
    return each | {"total": sum(each.values())}


def under_load(name: str, peer: Peer, target: Callable[[], Target], load: Load) -> Row:
    """A row: this load on that server. Its queue begins empty, and the disk idle."""

    def measure() -> Measurement:
        before = cpu.used_seconds(peer.groups())
        seen = generator.run(generator.COMMAND, target(), load)
        used = cpu.difference(before, cpu.used_seconds(peer.groups()))
        stored = getattr(peer, "stored", None)
        dot, transaction = seen["latency"]["final_dot"], seen["latency"]["transaction"]
        handshake = seen["latency"]["handshake"]
        return Measurement(
            row=name,
            messages_per_second=seen["messages_per_second"],
            cpu_seconds_per_1000=per_1000(used, seen["accepted_total"]),
            p50_ms=dot["p50_ms"],
            p99_ms=dot["p99_ms"],
            transaction_p50_ms=transaction["p50_ms"],
            transaction_p99_ms=transaction["p99_ms"],
            handshake_p50_ms=handshake["p50_ms"],
            handshake_p99_ms=handshake["p99_ms"],
            generator_cpu_us=seen["own_cpu_us_per_message"],
            errors=seen["errors"],
            kept=stored() if stored is not None else None,
            accepted=seen["accepted_total"],
        )

    return Row(name, measure, peer.clean)


@dataclass(frozen=True)
class Limit:
    """The same rows with no SMTP."""

    batch: int
    committers: int
    seconds: float
    size_bytes: int = 4096
    batches_per_second: float = 0.0


def without_smtp(name: str, ours: Ours, limit: Limit) -> Row:
    """A row: the store's own accept on the Postgres of `ours`."""

    def measure() -> Measurement:
        before = cpu.used_seconds(ours.groups())
        numbers = (limit.batch, limit.committers, limit.seconds, limit.size_bytes, limit.batches_per_second)
        command = [sys.executable, "-m", "benches.load.copy_rows", *map(str, numbers)]
        python_path = os.pathsep.join([str(ROOT), str(ROOT / "pyapp")])
        environment = {**os.environ, **ours.database(), "PYTHONPATH": python_path}
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
        seen = json.loads(done.stdout)
        used = cpu.difference(before, cpu.used_seconds(ours.groups()))
        accepted = int(seen["accepted_total"])
        return Measurement(
            row=name,
            messages_per_second=seen["messages_per_second"],
            cpu_seconds_per_1000=per_1000({"server": seen["own_cpu_seconds"], "postgres": used["postgres"]}, accepted),
            p50_ms=seen["p50_ms"],
            p99_ms=seen["p99_ms"],
            transaction_p50_ms=seen["p50_ms"],
            transaction_p99_ms=seen["p99_ms"],
            handshake_p50_ms=0.0,
            handshake_p99_ms=0.0,
            generator_cpu_us=0.0,
            errors={},
            kept=ours.stored(),
            accepted=accepted,
        )

    return Row(name, measure, ours.clean)
