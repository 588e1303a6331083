"""A process of its own: the same rows into the same Postgres by the store's own accept, with no SMTP at all.

This is the limit that an SMTP server over this store can not pass. Prints one JSON object.
A batch is encoded before the clock starts, and written as ours is (`Store.accept_encoded`). What the core does with
each batch under way, a copy of all bytes with ids in it, is done here too, as fast as Python can: it is in the figure.
Usage: python -m benches.load.copy_rows BATCH COMMITTERS SECONDS SIZE_BYTES RATE (the database from the environment)
RATE is batches per second, 0 for as fast as it can.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from smtp_proxy.config import Settings
from smtp_proxy.store import Store
from smtp_proxy.store.accept import CoreEnvelope, Encoded, Written, encode
from smtp_proxy.store.ids import new_id

WARMUP_SECONDS = 1.0
_PIECE_BYTES = 256 * 1024


class Rows:
    """Batches that differ in their ids alone."""

    def __init__(self, batch: int, size_bytes: int) -> None:
        self.messages = batch
        # Random base64 like the load generator's: nothing for compression to gain.
        body = base64.b64encode(os.urandom(size_bytes))[: size_bytes - 2] + b"\r\n"
        marks = [os.urandom(16) for _ in range(batch)]
        encoded = encode([_row(mark, body) for mark in marks], int(time.time() * 1_000_000))
        self._encoded, self._has_parts = b"".join(encoded), encoded.has_parts
        self._places = [(number, place) for number, mark in enumerate(marks) for place in _places(self._encoded, mark)]

    def encode(self, _sweep_at_us: int) -> Encoded:
        """The batch with fresh ids, which sort by time as the core's do (RFC 9562 5.7)."""
        return Written(self._fresh(), self._has_parts)

    def _fresh(self) -> Iterator[bytes]:
        encoded = bytearray(self._encoded)
        first = new_id(datetime.now(UTC)).bytes[:12]
        ids = [first + number.to_bytes(4) for number in range(self.messages)]
        for number, place in self._places:
            encoded[place : place + 16] = ids[number]
        # A transport writes views of it alike, and a copy more would not be fair.
        whole = memoryview(encoded)
        for at in range(0, len(whole), _PIECE_BYTES):
            yield whole[at : at + _PIECE_BYTES]  # type: ignore[misc]


def _row(envelope_id: bytes, body: bytes) -> CoreEnvelope:
    owner, recipients = bytes(16), ["recipient@load.example"]
    sender, received_us = "sender@load.example", int(time.time() * 1_000_000)
    return (
        envelope_id, owner, owner, sender, recipients, body, 0, False,
        "load.invalid", "127.0.0.1", False, received_us, None,
    )  # fmt: skip


def _places(encoded: bytes, mark: bytes) -> Iterator[int]:
    """Where an id stands: in its envelope, its body and its delivery."""
    place = encoded.find(mark)
    while place >= 0:
        yield place
        place = encoded.find(mark, place + 16)


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


async def committer(store: Store, rows: Rows, commits: Commits, rate: float) -> None:
    due = time.perf_counter()
    while (now := time.perf_counter()) < commits.end:
        if rate and due > now:
            await asyncio.sleep(due - now)
        due += 1 / rate if rate else 0.0
        began = time.perf_counter()
        await store.accept_encoded(rows.encode, rows.messages, sweep_after_seconds=15.0)
        commits.done(began, rows.messages)


async def measure(batch: int, committers: int, seconds: float, size_bytes: int, rate: float) -> dict[str, float]:
    store = await Store.connect(Settings.load(), purpose="bench")
    rows = Rows(batch, size_bytes)
    commits = Commits(time.perf_counter(), seconds)
    cpu = time.process_time()
    await asyncio.gather(*(committer(store, rows, commits, rate) for _ in range(committers)))
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
