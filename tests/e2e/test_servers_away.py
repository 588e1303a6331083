"""Postgres or Valkey are away for a while: nothing is acknowledged that is not stored, and all recovers by itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from fix_dev import Dev, until
from redis.asyncio import Redis
from senders import Refused, Senders, Wire

TOTAL = 300


def tree(pid: int) -> list[int]:
    """A process and its children, parent first."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


def arrived(dev: Dev, senders: Senders) -> bool:
    return {message["message_id"] for message in dev.sink()} >= set(senders.acknowledged)


async def test_postgres_stands_still(make_dev: Callable[..., Dev]) -> None:
    """A database that answers nothing: 451 or 421, no 250, until it goes on."""
    dev = make_dev("--plaintext-port", "0", "--set", "db_timeout_seconds=2").start()
    port = dev.ready["smtp"]["plaintext_port"]
    await Senders(port, 20).run()
    pids = tree(dev.ready["pids"]["postgres"])
    signal_all(pids, signal.SIGSTOP)
    try:
        wire = await Wire.open("127.0.0.1", port)
        with pytest.raises(Refused, match=r"^(451 4\.3\.\d|421 4\.3\.\d)"):
            await wire.transaction("a@test.example", "b@test.example", b"Subject: lost?\r\n\r\nno\r\n")
        await wire.close()
    finally:
        signal_all(pids, signal.SIGCONT)
    senders = Senders(port, 20)
    await senders.run()
    until(lambda: arrived(dev, senders), 30, dev.tail)
    assert dev.reread()["pids"]["postgres"] == pids[0]


@pytest.mark.parametrize("fault", ["emptied", "stands still"])
async def test_valkey_is_of_no_help(make_dev: Callable[..., Dev], fault: str) -> None:
    """Mail is accepted all the while, and delivered by itself."""
    dev = make_dev("--plaintext-port", "0").start()
    pid = dev.ready["pids"]["valkey"]
    flushing = Redis.from_url(dev.ready["redis_url"])
    if fault == "stands still":
        os.kill(pid, signal.SIGSTOP)

    senders = Senders(dev.ready["smtp"]["plaintext_port"], TOTAL)
    try:
        await senders.run(30)
        if fault == "emptied":
            await flushing.flushall()
    finally:
        os.kill(pid, signal.SIGCONT)
        await flushing.aclose()
    assert senders.interrupted == 0
    until(lambda: arrived(dev, senders), 60, lambda: f"{len(dev.sink())} of {TOTAL} arrived\n{dev.tail()}")


async def test_valkey_emptied_before_a_worker_looked(make_dev: Callable[..., Dev]) -> None:
    """Postgres rebuilds the stream: what waits is found without it."""
    dev = make_dev("--plaintext-port", "0").start()
    worker = dev.ready["pids"]["worker"]
    os.kill(worker, signal.SIGSTOP)
    senders = Senders(dev.ready["smtp"]["plaintext_port"], TOTAL)
    try:
        await senders.run(30)
        client = Redis.from_url(dev.ready["redis_url"])
        await client.flushall()
        await client.aclose()
    finally:
        os.kill(worker, signal.SIGCONT)
    until(lambda: arrived(dev, senders), 60, lambda: f"{len(dev.sink())} of {TOTAL} arrived\n{dev.tail()}")
