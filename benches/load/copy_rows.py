"""A process of its own: the same rows into the same Postgres by the store's own accept, with no SMTP at all.

This is the limit that an SMTP server over this store can not pass. Prints one JSON object.
Usage: python -m benches.load.copy_rows BATCH COMMITTERS SECONDS SIZE_BYTES RATE (the database from the environment)
RATE is batches per second, 0 for as fast as it can.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from datetime import UTC, datetime

from smtp_proxy.config import Settings
from smtp_proxy.store import Store
from smtp_proxy.store.accept import CoreEnvelope
from smtp_proxy.store.ids import new_id

WARMUP_SECONDS = 1.0
# Made before the clock starts; more than any Postgres here commits in that time.
_ROWS_PER_SECOND = 15_000


class Rows:
    """Batches of fresh rows that differ in their ids alone."""

    def __init__(self, batch: int, size_bytes: int) -> None:
        self._batch = batch
        self._tenant, self._credential = os.urandom(16), os.urandom(16)
        # Random base64 like the load generator's: nothing for compression to gain.
        text = os.urandom(size_bytes).hex()[: size_bytes - 2] + "\r\n"
        self._body = text.encode()

    def make(self) -> list[CoreEnvelope]:
        now = datetime.now(UTC)
        received_us = int(now.timestamp() * 1_000_000)
        return [
            (
                new_id(now).bytes,
                self._tenant,
                self._credential,
                "sender@load.example",
                ["recipient@load.example"],
                self._body,
                0,
                False,
                "load.invalid",
                "127.0.0.1",
                False,
                received_us,
                None,
            )
            for _ in range(self._batch)
        ]


class Commits:
    """What was committed and how long each commit took."""

    def __init__(self, start: float, seconds: float) -> None:
        self.counting_from = start + WARMUP_SECONDS
        self.end = self.counting_from + seconds
        self.messages = 0
        self.accepted_total = 0
        self.latencies: list[float] = []

    def done(self, began: float, messages: int) -> None:
        now = time.perf_counter()
        self.accepted_total += messages
        if began >= self.counting_from:
            self.latencies.append(now - began)
        if self.counting_from <= now <= self.end:
            self.messages += messages


async def committer(
    store: Store, prepared: list[list[CoreEnvelope]], rows: Rows, commits: Commits, rate: float
) -> None:
    due = time.perf_counter()
    while (now := time.perf_counter()) < commits.end:
        if rate and due > now:
            await asyncio.sleep(due - now)
        due += 1 / rate if rate else 0.0
        batch = prepared.pop() if prepared else rows.make()
        began = time.perf_counter()
        await store.accept(batch, sweep_after_seconds=15.0)
        commits.done(began, len(batch))


async def measure(batch: int, committers: int, seconds: float, size_bytes: int, rate: float) -> dict[str, float]:
    store = await Store.connect(Settings.load(), purpose="bench")
    rows = Rows(batch, size_bytes)
    prepared = [rows.make() for _ in range(int(_ROWS_PER_SECOND * (seconds + WARMUP_SECONDS)) // batch)]
    commits = Commits(time.perf_counter(), seconds)
    cpu = time.process_time()
    await asyncio.gather(*(committer(store, prepared, rows, commits, rate) for _ in range(committers)))
    cpu = time.process_time() - cpu
    await store.close()
    quantiles = statistics.quantiles(commits.latencies, n=100)
    return {
        "messages_per_second": commits.messages / seconds,
        "accepted_total": commits.accepted_total,
        "own_cpu_seconds": cpu,
        "p50_ms": quantiles[49] * 1000,
        "p99_ms": quantiles[98] * 1000,
    }


if __name__ == "__main__":
    batch, committers, seconds, size_bytes, rate = sys.argv[1:]
    result = asyncio.run(measure(int(batch), int(committers), float(seconds), int(size_bytes), float(rate)))
    print(json.dumps(result))
