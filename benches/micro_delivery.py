"""`python -m benches.micro_delivery`: the CPU of this process for a delivery alone, to smtp-sink, per 1,000 messages.

No store and no stream: what `delivery/` costs, of it `compose`, on asyncio's own loop and on uvloop. The parts take
turns; times are this process's own (user and system), 4 KiB, one recipient. `--quick` to see that it runs.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import uvloop

from benches.load.relays import Sink
from smtp_proxy.delivery.leg import Routes
from smtp_proxy.delivery.message import compose
from smtp_proxy.delivery.route import Route
from smtp_proxy.delivery.smtp import SmtpTransport
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.envelope import BodyType, Envelope, Job, Recipient

_ROUNDS, _MESSAGES, _CONCURRENCY = 5, 3000, 32
_BODY = b"From: a@load.example\r\nSubject: measured\r\n\r\n" + (b"x" * 76 + b"\r\n") * 52


def main(arguments: Sequence[str]) -> int:
    messages = 300 if "--quick" in arguments else _MESSAGES
    sink = Sink()
    sink.start()
    try:
        parts: dict[str, Callable[[], None]] = {
            "compose": lambda: _compose(messages),
            "delivery, asyncio": lambda: asyncio.run(_deliver(sink.port, messages)),
            "delivery, uvloop": lambda: uvloop.run(_deliver(sink.port, messages)),
        }
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in parts}
        for _ in range(_ROUNDS):
            for name, part in parts.items():
                seen[name].append(_timed(part, messages))
    finally:
        sink.stop()
    for name, times in seen.items():
        user, system = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:18} {user + system:.4f} CPU-s per 1,000 (user {user:.4f}, system {system:.4f})")
    return 0


def _timed(part: Callable[[], None], messages: int) -> tuple[float, float]:
    before = os.times()
    part()
    after = os.times()
    return (after.user - before.user) * 1000 / messages, (after.system - before.system) * 1000 / messages


def _job() -> Job:
    envelope = Envelope(
        uuid.uuid4(), uuid.uuid4(), uuid.uuid4(), "a@load.example", _BODY, BodyType.SEVEN_BIT, False,
        datetime.now(UTC), helo="client.example", client_address="127.0.0.1:4711",
    )  # fmt: skip
    return Job(envelope, (Recipient(0, "recipient@load.example", 1),))


def _compose(messages: int) -> None:
    envelope = _job().envelope
    for _ in range(messages):
        compose(envelope, "proxy.example")


async def _deliver(port: int, messages: int) -> None:
    transport = SmtpTransport(Routes(Route("127.0.0.1", port, "none", "proxy.example")))
    job, left = _job(), iter(range(messages))

    async def one_after_another() -> None:
        for _ in left:
            (result,) = await transport.deliver(job)
            if result.outcome is not Outcome.DELIVERED:
                raise RuntimeError(f"not delivered: {result}")

    await asyncio.gather(*[one_after_another() for _ in range(_CONCURRENCY)])
    await transport.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
