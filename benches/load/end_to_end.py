"""Accepted, queued, delivered: how long mail waits, and how fast a queue drains."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches.load import generator
from benches.load.generator import Load
from benches.load.ours import Ours
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.envelope import DeliveryState

_SENDERS = tuple(f"sender{n}@load.example" for n in range(5))

# From the final dot to the start of the first attempt. The commit is in it, so the time in the queue is a little
# overstated. What was never attempted has waited until now, and is not left out.
_WAIT = """
    SELECT count(*) AS messages,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY wait_ms) AS p50_ms,
           percentile_cont(0.99) WITHIN GROUP (ORDER BY wait_ms) AS p99_ms,
           max(wait_ms) AS max_ms
    FROM (SELECT extract(epoch FROM coalesce(a.started_at, clock_timestamp()) - e.received_at) * 1000 AS wait_ms
          FROM envelopes e LEFT JOIN attempts a ON a.envelope_id = e.id AND a.attempt_number = 1) AS waits
"""
_LEFT = f"SELECT count(*) FROM deliveries WHERE state IN ({DeliveryState.QUEUED:d}, {DeliveryState.SENDING:d})"
_COUNTS = f"""
    SELECT count(*) AS delivered, count(DISTINCT envelope_id) AS messages,
           extract(epoch FROM max(finished_at) - min(started_at)) AS seconds
    FROM attempts WHERE outcome = {Outcome.DELIVERED:d}
"""


@dataclass(frozen=True)
class Size:
    """How much of it."""

    seconds: float  # at 170 messages per second
    burst: int  # messages that pile up at once


def _until_empty(ours: Ours, timeout_seconds: float = 120) -> None:
    end = time.monotonic() + timeout_seconds
    while ours.sql(_LEFT)[0][0] and time.monotonic() < end:
        time.sleep(0.2)


def queue_latency(command: Path, ours: Ours, seconds: float) -> dict[str, Any]:
    """At the rate that the issue names: 170 messages per second, as an open model."""
    ours.clean()
    load = Load(connections=20, seconds=seconds, warmup_seconds=0, rate=170, senders=_SENDERS)
    seen = generator.run(command, ours.target(), load)
    _until_empty(ours, timeout_seconds=30)
    wait, counts = ours.sql(_WAIT)[0], ours.sql(_COUNTS)[0]
    if not wait["messages"]:
        return {"accepted": 0}  # with no latency to judge: "not measured", never "0 ms"
    return {
        "accepted": seen["accepted_total"],
        "stored": wait["messages"],
        "delivered": counts["delivered"],
        "delivered_messages": counts["messages"],
        "left": ours.sql(_LEFT)[0][0],
        "accept_p99_ms": seen["latency"]["from_due"]["p99_ms"],
        "queue_p50_ms": float(wait["p50_ms"]),
        "queue_p99_ms": float(wait["p99_ms"]),
        "queue_max_ms": float(wait["max_ms"]),
    }


def drain(command: Path, ours: Ours, burst: int) -> dict[str, Any]:
    """A burst as fast as it is accepted; the rate is of deliveries, from the first attempt's start to the last end."""
    ours.clean()
    load = Load(connections=50, seconds=0, warmup_seconds=0, messages=burst, senders=_SENDERS)
    seen = generator.run(command, ours.target(), load)
    _until_empty(ours)
    counts = ours.sql(_COUNTS)[0]
    seconds = float(counts["seconds"] or 0)
    return {
        "accepted": seen["accepted_total"],
        "accepted_per_second": seen["messages_per_second"],
        "delivered": counts["delivered"],
        "left": ours.sql(_LEFT)[0][0],
        "delivered_per_second": counts["delivered"] / seconds if seconds else 0.0,
    }


def measure(command: Path, folder: Path, fast_sink: Ours, size: Size) -> dict[str, dict[str, Any]]:
    """With the built-in sink (aiosmtpd), and with a fast one: our own accept-only listener."""
    seen: dict[str, dict[str, Any]] = {}
    for name, ours in (
        ("to the built-in sink", Ours.delivering(folder)),
        ("to a fast sink", Ours.delivering(folder, fast_sink.target().port)),
    ):
        ours.start()
        try:
            seen[f"queue latency {name}"] = queue_latency(command, ours, size.seconds)
            seen[f"drain {name}"] = drain(command, ours, size.burst)
        finally:
            ours.stop()
    return seen
