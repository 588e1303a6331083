"""The fake keeps the promises of the stream."""

from __future__ import annotations

import pytest
from stream_suite import Streams, StreamSuite, envelope_id

from smtp_proxy.errors import StreamUnavailable
from smtp_proxy.stream.memory import MemoryConsumer, MemoryDepth, MemoryPublisher, MemoryServer


@pytest.fixture
def streams() -> Streams:
    server = MemoryServer()
    return Streams(MemoryPublisher(server), MemoryDepth(server), lambda name: MemoryConsumer(server, name))


class TestMemory(StreamSuite):
    pass


async def test_a_redis_out_of_reach() -> None:
    server = MemoryServer(available=False)
    with pytest.raises(StreamUnavailable):
        await MemoryPublisher(server).publish([envelope_id()])
    with pytest.raises(StreamUnavailable):
        await MemoryConsumer(server, "a").read(1, 10)
    with pytest.raises(StreamUnavailable):
        await MemoryDepth(server).depth()


async def test_a_newly_accepted_envelope_waits_while_the_group_is_behind() -> None:
    server = MemoryServer()
    publisher, consumer, depth = MemoryPublisher(server), MemoryConsumer(server, "a"), MemoryDepth(server)
    await publisher.publish([envelope_id(), envelope_id()])
    await consumer.read(1, 10)
    old, new = envelope_id(age_seconds=60), envelope_id(age_seconds=-60)
    assert await depth.missing([old, new]) == [old]
