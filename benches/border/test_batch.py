"""The border alone: envelopes that wait in the core, from `next_batch()` to `commit()`.

Before the clock starts every client has sent its message and waits, and the core has nothing left to do; the clients
read their 250s after it has stopped. The clock is this thread's CPU time, since nothing in between waits: by the wall,
the core's thread, which `commit()` wakes, often takes our place and writes its replies first. So the times hold neither
SMTP nor a client, nor what the core does with the verdicts.

"left in Rust" takes and answers the same batch without `envelopes()`: the difference is the conversion.
"""

from __future__ import annotations

import time
from uuid import UUID

import pytest

from smtp_proxy.core import BODY, ID, RECIPIENTS, REVERSE_PATH, TENANT_ID, EnvelopeRow

from .sessions import IDENTITY, RECIPIENT, SENDER, Client, Core, message, running

_TEXT = message(4096)
_ROUNDS = {1: 500, 50: 100, 500: 30}


class Crossing:
    """One batch after the other, of one message per client."""

    def __init__(self, core: Core, clients: list[Client], *, converted: bool) -> None:
        self._core, self._clients, self._converted = core, clients, converted
        self._rows: list[EnvelopeRow] = []
        self._taken = 0
        self.checked = 0

    def prepare(self) -> None:
        self._rows = []  # freed before the clock starts
        for client in self._clients:
            client.begin_message()
        for client in self._clients:
            client.write(_TEXT + b".\r\n")
        self._core.wait_until_queued(len(self._clients))

    def cross(self) -> None:
        batch = self._core.server.next_batch(500, 1 << 25)
        assert batch is not None
        self._taken = len(batch)
        if self._converted:
            self._rows = batch.envelopes()
        batch.commit()

    def check(self) -> None:
        """Every client got its own 250, and every row is what a client sent."""
        assert self._taken == len(self._clients)
        replies = [client.read(1)[0] for client in self._clients]
        assert all(reply.startswith(b"250 2.0.0 queued as ") for reply in replies), replies
        ids = {UUID(reply.split()[-1].decode()).bytes for reply in replies}
        assert len(ids) == len(self._clients)
        if self._converted:
            assert {row[ID] for row in self._rows} == ids
            assert all(_is_ours(row) for row in self._rows)
        self.checked += len(replies)


def _is_ours(row: EnvelopeRow) -> bool:
    addresses = (row[REVERSE_PATH], row[RECIPIENTS]) == (SENDER, [RECIPIENT])
    return addresses and row[BODY] == _TEXT and row[TENANT_ID] == IDENTITY[0]


@pytest.mark.benchmark(timer=time.thread_time)
@pytest.mark.parametrize("converted", [True, False], ids=["to Python values", "left in Rust"])
@pytest.mark.parametrize("messages", _ROUNDS)
def test_batch(benchmark, note, messages: int, converted: bool) -> None:
    benchmark.group = f"a batch of {messages} x 4 KiB"
    rounds = _ROUNDS[messages]
    with running(messages) as (core, clients):
        crossing = Crossing(core, clients, converted=converted)
        benchmark.pedantic(
            crossing.cross, setup=crossing.prepare, teardown=crossing.check, rounds=rounds, warmup_rounds=3
        )
        stats = core.server.stats()
    assert crossing.checked == stats["accepted_total"] == (rounds + 3) * messages
    assert stats["deferred_total"] == stats["envelopes_waiting"] == 0
    note(us_per_message=1e6 * benchmark.stats.stats.median / messages)
