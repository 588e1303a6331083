"""The parser as a client meets it: one session on a real core, over loopback.

The border has no parser to call, so these times hold the sockets and the core's thread as well; `benches/micro`
(criterion, `cargo bench -p smtp-proxy-proto`) measures the parser alone. The client's share is small, a write and some
reads, and told apart: `core_cpu` is the CPU time of the core's threads only.
"""

from __future__ import annotations

import pytest

from smtp_proxy.core import BODY, Batch

from .sessions import Client, Core, CoreCpu, message, running

_GROUP = b"MAIL FROM:<sender@load.example> SIZE=4096\r\nRCPT TO:<recipient@load.example>\r\nRSET\r\n"
_MIB = 1 << 20


class Burst:
    """So many groups of three commands in one write, and all their replies."""

    def __init__(self, client: Client, groups: int) -> None:
        self._client, self._commands = client, _GROUP * groups
        self.count = 3 * groups
        self._replies: list[bytes] = []
        self.answered = 0

    def send(self) -> None:
        self._client.write(self._commands)
        self._replies = self._client.read(self.count)

    def check(self) -> None:
        assert len(self._replies) == self.count
        assert all(reply.startswith(b"250 2.") for reply in self._replies), self._replies
        self.answered += len(self._replies)


class Text:
    """One large message: from its first byte until the whole envelope has been taken from the core."""

    def __init__(self, core: Core, client: Client, size_bytes: int) -> None:
        self._core, self._client = core, client
        self._body = message(size_bytes)
        self._sent = self._body + b".\r\n"
        self._batch: Batch | None = None
        self.taken_bytes = 0

    def send(self) -> None:
        self._client.write(self._sent)
        self._batch = self._core.next_batch()

    def check(self) -> None:
        assert self._batch is not None
        assert len(self._batch) == 1
        assert self._batch.size_bytes == len(self._body)
        self.taken_bytes += self._batch.size_bytes
        assert self._batch.envelopes()[0][BODY] == self._body
        self._batch.commit()
        (reply,) = self._client.read(1)
        assert reply.startswith(b"250 2.0.0 queued as "), reply


@pytest.mark.parametrize("groups", [1, 1000], ids=["3 commands", "3,000 commands"])
def test_pipelined_commands(benchmark, note, groups: int) -> None:
    benchmark.group = "pipelined commands in one write"
    rounds, cpu = (1000 if groups == 1 else 100), CoreCpu()
    with running(1) as (_, clients):
        burst = Burst(clients[0], groups)
        benchmark.pedantic(burst.send, setup=cpu.start, teardown=_both(cpu.stop, burst.check), rounds=rounds)
    assert burst.answered == rounds * burst.count
    note(
        commands_per_second=burst.count / benchmark.stats.stats.median,
        core_cpu_ns_per_command=1e9 * cpu.seconds / burst.answered,
    )


@pytest.mark.parametrize("mib", [1, 16])
def test_data(benchmark, note, mib: int) -> None:
    benchmark.group = "DATA"
    rounds, cpu = 30, CoreCpu()
    with running(1) as (core, clients):
        text = Text(core, clients[0], mib * _MIB)
        benchmark.pedantic(
            text.send,
            setup=_both(clients[0].begin_message, cpu.start),
            teardown=_both(cpu.stop, text.check),
            rounds=rounds,
        )
        assert core.server.stats()["accepted_total"] == rounds
    assert text.taken_bytes == rounds * mib * _MIB
    note(mib_per_second=mib / benchmark.stats.stats.median, core_cpu_ms_per_mib=1e3 * cpu.seconds / (rounds * mib))


def _both(first, second):  # type: ignore[no-untyped-def]
    def run() -> None:
        first()
        second()

    return run
