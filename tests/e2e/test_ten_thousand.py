"""10,000 messages from several senders: each arrives exactly once."""

from __future__ import annotations

from collections import Counter

from fix_dev import Dev, until
from senders import Senders

TOTAL = 10_000


async def test_each_exactly_once(dev: Dev) -> None:
    senders = Senders(dev.ready["smtp"]["plaintext_port"], TOTAL, connections=20)
    await senders.run()
    assert len(senders.acknowledged) == TOTAL
    assert senders.interrupted == 0

    seen: Counter[str] = Counter()
    cursor = 0

    def all_arrived() -> bool:
        nonlocal cursor
        for message in dev.sink(cursor):
            seen[message["message_id"]] += 1
            cursor = message["number"]
        return len(seen) >= TOTAL

    until(all_arrived, 90, lambda: f"{len(seen)} of {TOTAL} arrived\n{dev.tail()}")
    assert set(seen) == set(senders.acknowledged)
    assert [message_id for message_id, times in seen.items() if times != 1] == []
    ids = {reply.rpartition(" ")[2] for reply in senders.acknowledged.values()}
    assert len(ids) == TOTAL
