"""kill -9 of any one process in the middle of 2,000 messages: what was answered 250 is delivered."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fix_dev import Dev, until
from senders import Senders

TOTAL = 2000


def delivered(dev: Dev) -> set[str]:
    return {message["message_id"] for message in dev.sink()}


@pytest.mark.parametrize("at", [50, 900])
@pytest.mark.parametrize("service", ["smtp", "worker", "postgres", "valkey", "sink"])
async def test_nothing_acknowledged_is_lost(make_dev: Callable[..., Dev], service: str, at: int) -> None:
    dev = make_dev("--plaintext-port", "0").start()
    killed: list[int] = []

    def kill_in_the_middle(acknowledged: int) -> None:
        if acknowledged >= at and not killed:
            killed.append(dev.reread()["pids"][service])
            dev.kill(service)

    senders = Senders(dev.ready["smtp"]["plaintext_port"], TOTAL, on_acknowledged=kill_in_the_middle)
    await senders.run()
    assert killed
    assert len(senders.acknowledged) == TOTAL
    if service in ("smtp", "postgres"):
        assert senders.interrupted > 0  # else it was killed too late to show anything

    def all_arrived() -> bool:
        try:
            return delivered(dev) >= set(senders.acknowledged)
        except OSError:
            return False  # the sink is on its way back

    until(all_arrived, 60, lambda: f"missing: {sorted(set(senders.acknowledged) - delivered(dev))[:5]}\n{dev.tail()}")
    assert dev.until_replaced(service, killed[0]) != killed[0]
    assert dev.stop() == 0, dev.tail()
