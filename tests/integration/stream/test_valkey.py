"""The stream on a real Valkey: the common suite, and what only a real server can do to us."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from stopwatch import Stopwatch
from stream_suite import Streams, StreamSuite, envelope_id, read_all

from smtp_proxy.config import Settings
from smtp_proxy.errors import StreamUnavailable
from smtp_proxy.stream.consumer import Consumer
from smtp_proxy.stream.depth import Depth
from smtp_proxy.stream.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fix_valkey import ValkeyServer

pytestmark = pytest.mark.integration


def settings_for(valkey: ValkeyServer, shards: int = 1) -> Settings:
    return Settings.load({"redis_url": valkey.url, "redis_timeout_seconds": 1.0, "stream_shards": shards}, {})


async def close(*parts: Publisher | Consumer | Depth) -> None:
    for part in parts:
        await part.close()


@pytest.fixture(params=[1, 4], ids=["1-shard", "4-shards"])
async def streams(valkey: ValkeyServer, request: pytest.FixtureRequest) -> AsyncIterator[Streams]:
    settings = settings_for(valkey, request.param)
    made: list[Consumer] = []

    def consumer(name: str) -> Consumer:
        made.append(Consumer(settings, name))
        return made[-1]

    streams = Streams(Publisher(settings), Depth(settings), consumer)
    yield streams
    for consumer_made in made:
        await consumer_made.close()
    await streams.publisher.close()
    await streams.depth.close()


class TestValkey(StreamSuite):
    async def test_flushall_under_a_reader(self, streams: Streams, valkey: ValkeyServer) -> None:
        consumer = streams.consumer("a")
        await streams.publisher.publish([envelope_id() for _ in range(10)])
        before = await read_all(consumer, 10)
        reading = asyncio.create_task(consumer.read(10, 2000))
        await asyncio.sleep(0.1)
        valkey.command(b"FLUSHALL")
        valkey.command(b"SCRIPT", b"FLUSH")
        with contextlib.suppress(StreamUnavailable):  # FLUSHALL may wake a blocked read with an error, or not
            await reading
        await consumer.done(before)
        wanted = [envelope_id() for _ in range(10)]
        await streams.publisher.publish(wanted)
        entries = await read_all(consumer, 10)
        assert sorted(e.envelope_id for e in entries) == sorted(wanted)
        await consumer.done(entries)
        assert await streams.depth.depth() == 0

    async def test_killed_and_started_again(self, streams: Streams, valkey: ValkeyServer) -> None:
        consumer = streams.consumer("a")
        await streams.publisher.publish([envelope_id()])
        await consumer.done(await read_all(consumer, 1))
        valkey.kill()
        began = time.monotonic()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: streams.publisher.publish([envelope_id()]),
            lambda: consumer.read(1, 50),
            streams.depth.depth,
            lambda: consumer.reclaim(0.0),
        ]
        for call in calls:
            with pytest.raises(StreamUnavailable):
                await call()
        assert time.monotonic() - began < 4 * 2
        valkey.start()
        wanted = envelope_id()
        await streams.publisher.publish([wanted])
        entries = await read_all(consumer, 1)
        assert [e.envelope_id for e in entries] == [wanted]


async def test_a_silent_server_is_given_up_in_time(valkey: ValkeyServer) -> None:
    settings = settings_for(valkey)
    publisher = Publisher(settings)
    await publisher.publish([envelope_id()])
    valkey.pause()
    try:
        with Stopwatch() as call, pytest.raises(StreamUnavailable):
            await publisher.publish([envelope_id()])
        assert call.seconds < 1.5
    finally:
        valkey.resume()
    await publisher.publish([envelope_id()])
    await publisher.close()


async def test_an_acknowledged_entry_is_no_backlog(valkey: ValkeyServer) -> None:
    """The trap of XLEN: entries that another release acknowledged and did not delete."""
    settings = settings_for(valkey)
    publisher, consumer, depth = Publisher(settings), Consumer(settings, "a"), Depth(settings)
    await publisher.publish([envelope_id() for _ in range(20)])
    entries = await read_all(consumer, 20)
    for entry in entries:
        valkey.command(b"XACK", b"email-processing", b"workers", entry.entry_id)
    assert valkey.command(b"XLEN", b"email-processing") == b":20\r\n"
    assert await depth.depth() == 0
    await close(publisher, consumer, depth)


async def test_depth_when_the_lag_cannot_be_told(valkey: ValkeyServer) -> None:
    settings = settings_for(valkey)
    publisher, consumer, depth = Publisher(settings), Consumer(settings, "a"), Depth(settings)
    await publisher.publish([envelope_id() for _ in range(10)])
    entries = await consumer.read(4, 10)
    last = valkey.command(b"XREVRANGE", b"email-processing", b"+", b"-", b"COUNT", b"1")
    valkey.command(b"XDEL", b"email-processing", last.split(b"\r\n")[3])  # a hole ahead of the group
    assert b"lag\r\n$-1" in valkey.command(b"XINFO", b"GROUPS", b"email-processing")
    assert await depth.depth() == 9
    await consumer.done(entries)
    assert await depth.depth() == 5
    await close(publisher, consumer, depth)


async def test_the_name_of_one_that_left_is_gone(valkey: ValkeyServer) -> None:
    settings = settings_for(valkey)
    publisher, leaving, staying = Publisher(settings), Consumer(settings, "leaving"), Consumer(settings, "staying")
    await publisher.publish([envelope_id() for _ in range(3)])
    await leaving.read(3, 10)
    await staying.read(1, 10)
    await leaving.close()
    consumers = valkey.command(b"XINFO", b"CONSUMERS", b"email-processing", b"workers")
    assert b"leaving" not in consumers
    assert b"staying" in consumers
    await close(publisher, staying)


async def test_an_entry_of_unknown_shape_can_be_acknowledged(valkey: ValkeyServer) -> None:
    settings = settings_for(valkey)
    consumer, depth = Consumer(settings, "a"), Depth(settings)
    valkey.command(b"XADD", b"email-processing", b"*", b"what", b"is this")
    entries = await read_all(consumer, 1)
    assert entries[0].envelope_id.int == 0
    await consumer.done(entries)
    assert await depth.depth() == 0
    await close(consumer, depth)


async def test_a_batch_is_one_call(valkey: ValkeyServer) -> None:
    settings = settings_for(valkey)
    publisher = Publisher(settings)
    await publisher.publish([envelope_id()])
    before = _calls(valkey)
    await publisher.publish([envelope_id() for _ in range(500)])
    assert _calls(valkey) - before == 1
    await publisher.close()


def _calls(valkey: ValkeyServer) -> int:
    for line in valkey.command(b"INFO", b"commandstats").split(b"\r\n"):
        if line.startswith(b"cmdstat_evalsha:"):
            return int(line.split(b"calls=")[1].split(b",")[0])
    return 0


async def test_a_shard_in_trouble_takes_nothing_from_the_others(valkey: ValkeyServer) -> None:
    """What the others had handed over was once thrown away with its error, and looked at again a lease later."""
    settings = settings_for(valkey, shards=2)
    publisher, dead, alive = Publisher(settings), Consumer(settings, "dead"), Consumer(settings, "alive")
    await publisher.publish([envelope_id() for _ in range(40)])
    held = await read_all(dead, 40)
    broken, good = sorted({entry.stream for entry in held})
    valkey.command(b"SET", broken.encode(), b"no stream")
    wanted = sorted(entry.envelope_id for entry in held if entry.stream == good)
    assert sorted(entry.envelope_id for entry in await alive.reclaim(0.0)) == wanted
    await alive.done([entry for entry in held if entry.stream == good])
    with pytest.raises(StreamUnavailable):
        await alive.reclaim(0.0)
    valkey.command(b"DEL", broken.encode())
    await close(publisher, dead, alive)


async def test_what_the_other_shards_have_is_read_beside_one_that_fails(valkey: ValkeyServer) -> None:
    """While they were quiet each read once failed with it, and nothing was read at all for two seconds."""
    settings = settings_for(valkey, shards=2)
    publisher, consumer = Publisher(settings), Consumer(settings, "a")
    ids = [envelope_id() for _ in range(40)]
    await publisher.publish(ids)
    entries = await read_all(consumer, 40)
    broken, good = sorted({entry.stream for entry in entries})
    there = [entry.envelope_id for entry in entries if entry.stream == good]
    await consumer.done(entries)
    assert consumer.is_whole
    valkey.command(b"SET", broken.encode(), b"no stream")
    for _ in range(3):
        assert await consumer.read(10, 100) == []
        assert not consumer.is_whole
    with Stopwatch() as there_and_back:
        await publisher.publish(there)
        assert {entry.envelope_id for entry in await read_all(consumer, len(there))} == set(there)
    assert there_and_back.seconds < 1.5
    valkey.command(b"DEL", broken.encode())
    await asyncio.sleep(2)
    await publisher.publish(ids)
    await read_all(consumer, 40)
    assert consumer.is_whole
    await close(publisher, consumer)


async def test_what_can_not_be_acknowledged_keeps_no_other_shard_from_it(valkey: ValkeyServer) -> None:
    settings = settings_for(valkey, shards=2)
    publisher, consumer, depth = Publisher(settings), Consumer(settings, "a"), Depth(settings)
    await publisher.publish([envelope_id() for _ in range(40)])
    entries = sorted(await read_all(consumer, 40), key=lambda entry: entry.stream)
    broken = entries[0].stream
    valkey.command(b"SET", broken.encode(), b"no stream")
    with pytest.raises(StreamUnavailable):
        await consumer.done(entries)
    valkey.command(b"DEL", broken.encode())
    assert await depth.depth() == 0, "what was acknowledged with an error stood for read and not done"
    await close(publisher, consumer, depth)


async def test_a_server_that_stands_still_is_waited_for_once_when_taking_over(valkey: ValkeyServer) -> None:
    """Each key of each shard once was, for the whole time-out."""
    consumer = Consumer(settings_for(valkey, shards=4), "a")
    assert await consumer.read(1, 1) == []
    valkey.pause()
    try:
        with pytest.raises(StreamUnavailable):
            await consumer.read(1, 1)
        with Stopwatch() as call, pytest.raises(StreamUnavailable):
            await consumer.reclaim(0.0)
        assert call.seconds < 0.5
    finally:
        valkey.resume()
    await consumer.close()
