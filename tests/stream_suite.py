"""What every stream must do: the same suite runs on Valkey (one shard, four shards) and on `stream.memory`."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from smtp_proxy.model.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtp_proxy.stream.interface import Entry, StreamConsumer, StreamDepth, StreamPublisher


def envelope_id(age_seconds: float = 0.0) -> UUID:
    """A UUIDv7 of so long ago."""
    head = int((time.time() - age_seconds) * 1000) << 80
    return UUID(int=head | 7 << 76 | secrets.randbits(76) & ~(0xC << 60) | 0x8 << 60)


@dataclass
class Streams:
    """The parts under test; `consumer(name)` makes another place in the group."""

    publisher: StreamPublisher
    depth: StreamDepth
    consumer: Callable[[str], StreamConsumer]


async def unread(streams: Streams) -> int:
    return sum(standing.unread for standing in (await streams.depth.standings()).values())


async def read_all(consumer: StreamConsumer, expected: int, seconds: float = 5.0) -> list[Entry]:
    entries: list[Entry] = []
    deadline = time.monotonic() + seconds
    while len(entries) < expected and time.monotonic() < deadline:
        entries += await consumer.read(100, 100)
    return entries


class StreamSuite:
    async def test_every_id_is_read_once_and_is_gone_when_done(self, streams: Streams) -> None:
        consumer = streams.consumer("a")
        ids = [envelope_id() for _ in range(250)]
        await streams.publisher.publish(ids)
        entries = await read_all(consumer, 250)
        assert sorted(e.envelope_id for e in entries) == sorted(ids), (len(entries), len(ids))
        await consumer.done(entries)
        assert await consumer.read(10, 20) == []
        assert await streams.depth.depth() == 0

    async def test_nothing_published_is_nothing_sent(self, streams: Streams) -> None:
        await streams.publisher.publish([])
        assert await streams.depth.depth() == 0

    async def test_depth_is_unread_plus_pending(self, streams: Streams) -> None:
        consumer = streams.consumer("a")
        await consumer.read(1, 10)
        await streams.publisher.publish([envelope_id() for _ in range(40)])
        assert (await streams.depth.depth(), await unread(streams)) == (40, 40)
        entries = await read_all(consumer, 40)
        assert (await streams.depth.depth(), await unread(streams)) == (40, 0)
        await consumer.done(entries[:30])
        assert (await streams.depth.depth(), await unread(streams)) == (10, 0)

    async def test_depth_before_any_group(self, streams: Streams) -> None:
        await streams.publisher.publish([envelope_id() for _ in range(7)])
        assert await streams.depth.depth() == 7

    async def test_two_consumers_share_without_overlap(self, streams: Streams) -> None:
        one, two = streams.consumer("a"), streams.consumer("b")
        ids = [envelope_id() for _ in range(100)]
        await streams.publisher.publish(ids)
        entries = [*(await one.read(40, 50)), *(await read_all(two, 60))]
        entries += await read_all(one, 100 - len(entries), 1.0)
        assert sorted(e.envelope_id for e in entries) == sorted(ids), (len(entries), len(ids))

    async def test_a_waiting_read_wakes_up(self, streams: Streams) -> None:
        consumer = streams.consumer("a")
        await consumer.read(1, 10)
        reading = asyncio.create_task(read_all(consumer, 1))
        await asyncio.sleep(0.05)
        wanted = envelope_id()
        await streams.publisher.publish([wanted])
        assert [e.envelope_id for e in await reading] == [wanted]

    async def test_done_twice_is_no_error(self, streams: Streams) -> None:
        consumer = streams.consumer("a")
        await streams.publisher.publish([envelope_id()])
        entries = await read_all(consumer, 1)
        await consumer.done(entries)
        await consumer.done(entries)
        await consumer.done([])
        assert await streams.depth.depth() == 0

    async def test_what_the_dead_held_is_reclaimed(self, streams: Streams) -> None:
        dead, alive = streams.consumer("dead"), streams.consumer("alive")
        ids = [envelope_id() for _ in range(5)]
        await streams.publisher.publish(ids)
        assert len(await read_all(dead, 5)) == 5
        assert await alive.reclaim(60.0) == []
        entries = await alive.reclaim(0.0)
        assert sorted(e.envelope_id for e in entries) == sorted(ids), (len(entries), len(ids))
        await alive.done(entries)
        assert await streams.depth.depth() == 0

    async def test_bulk_that_the_dead_held_is_left_while_it_has_no_room(self, streams: Streams) -> None:
        dead, alive = streams.consumer("dead"), streams.consumer("alive")
        first, bulk = [envelope_id() for _ in range(3)], [envelope_id() for _ in range(4)]
        await streams.publisher.publish(first)
        await streams.publisher.publish(bulk, Lane.BULK)
        assert len(await read_all(dead, 7)) == 7
        assert sorted(e.envelope_id for e in await alive.reclaim(0.0, bulk=False)) == sorted(first)
        assert set(bulk) <= {e.envelope_id for e in await alive.reclaim(0.0)}

    async def test_reclaim_where_there_is_nothing(self, streams: Streams) -> None:
        assert await streams.consumer("a").reclaim(0.0) == []

    async def test_leaving_acknowledges_what_was_read(self, streams: Streams) -> None:
        leaving, staying = streams.consumer("leaving"), streams.consumer("staying")
        await streams.publisher.publish([envelope_id() for _ in range(9)])
        await read_all(leaving, 9)
        await leaving.close()
        assert await streams.depth.depth() == 0
        assert await staying.reclaim(0.0) == []

    async def test_what_is_still_unread_is_not_missing(self, streams: Streams) -> None:
        consumer = streams.consumer("a")
        old, new = envelope_id(age_seconds=3600), envelope_id(age_seconds=-60)
        assert await streams.depth.missing([old, new]) == [old, new], "an empty stream holds nothing"
        await streams.publisher.publish([envelope_id() for _ in range(40)])
        read = 0
        while read == 0:  # each shard has to have been read once for the group to stand anywhere
            read = len(await read_all(consumer, 1))
        await streams.publisher.publish([envelope_id() for _ in range(40)])
        assert old in await streams.depth.missing([old, new])
        await read_all(consumer, 80 - read)
        assert await streams.depth.missing([old, new]) == [old, new], "everything was read"

    # -- lanes

    async def test_transactional_mail_goes_first_and_bulk_is_never_starved(self, streams: Streams) -> None:
        consumer = streams.consumer("a")
        await consumer.read(1, 10)
        bulk = {envelope_id() for _ in range(600)}
        first = {envelope_id() for _ in range(600)}
        await streams.publisher.publish(list(bulk), Lane.BULK)
        await read_all(consumer, 100)
        await streams.publisher.publish(list(first))
        read: list[UUID] = []
        while len(read) < 400:
            entries = await consumer.read(100, 1000)
            read += [entry.envelope_id for entry in entries]
            await consumer.done(entries)
        share = sum(i in bulk for i in read) / len(read)
        assert 0.1 < share < 0.45, "most is transactional, and some is bulk"

    async def test_bulk_alone_takes_all_places(self, streams: Streams) -> None:
        consumer = streams.consumer("a")
        ids = [envelope_id() for _ in range(300)]
        await streams.publisher.publish(ids, Lane.BULK)
        assert await streams.depth.depth() == 300
        standings = await streams.depth.standings()
        assert {lane: standing.unread for lane, standing in standings.items()} == {
            Lane.TRANSACTIONAL: 0, Lane.BULK: 300,
        }  # fmt: skip
        entries = await read_all(consumer, 300)
        assert sorted(e.envelope_id for e in entries) == sorted(ids), (len(entries), len(ids))
        await consumer.done(entries)
        assert await streams.depth.depth() == 0

    async def test_bulk_can_be_left_for_later(self, streams: Streams) -> None:
        consumer = streams.consumer("a")
        bulk = [envelope_id() for _ in range(60)]
        first = [envelope_id() for _ in range(250)]
        await streams.publisher.publish(bulk, Lane.BULK)
        assert await consumer.read(100, 20, bulk=False) == []
        await streams.publisher.publish(first)
        read: list[Entry] = []
        async with asyncio.timeout(10):
            while len(read) < 250:
                read += await consumer.read(100, 100, bulk=False)
        assert sorted(e.envelope_id for e in read) == sorted(first)
        assert await consumer.read(100, 20, bulk=False) == []
        left = await read_all(consumer, 60)
        assert sorted(e.envelope_id for e in left) == sorted(bulk)
        await consumer.done([*read, *left])
        assert await streams.depth.depth() == 0

    async def test_bulk_that_the_dead_held_is_reclaimed(self, streams: Streams) -> None:
        dead, alive = streams.consumer("dead"), streams.consumer("alive")
        ids = [envelope_id() for _ in range(5)]
        await streams.publisher.publish(ids, Lane.BULK)
        await read_all(dead, 5)
        entries = await alive.reclaim(0.0)
        assert sorted(e.envelope_id for e in entries) == sorted(ids), (len(entries), len(ids))
        await alive.done(entries)
        assert await streams.depth.depth() == 0

    async def test_what_waits_in_one_lane_is_missing_in_the_other(self, streams: Streams) -> None:
        consumer = streams.consumer("a")
        new = envelope_id(age_seconds=-60)
        for _ in range(2):
            await streams.publisher.publish([envelope_id() for _ in range(40)], Lane.BULK)
            await consumer.read(40, 100)
        await streams.publisher.publish([new, *(envelope_id() for _ in range(40))], Lane.BULK)
        assert await streams.depth.missing([new]) == [new]
