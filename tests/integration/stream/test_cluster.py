"""The stream and the limits on a Redis Cluster of three nodes, with four shards: the common suite, and lost nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from fix_valkey import ValkeyCluster
from stream_suite import Streams, StreamSuite, envelope_id, read_all

from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError, StreamUnavailable
from smtp_proxy.stream.consumer import Consumer
from smtp_proxy.stream.depth import Depth
from smtp_proxy.stream.interface import StreamConsumer
from smtp_proxy.stream.limits import RateRequest, SharedLimits
from smtp_proxy.stream.paces import Backoff, Paces, Rates
from smtp_proxy.stream.places import Limit, Places
from smtp_proxy.stream.publisher import Publisher

pytestmark = pytest.mark.integration

SHARDS = 4


def settings_for(cluster: ValkeyCluster) -> Settings:
    values = {"redis_url": cluster.url, "redis_cluster": True, "redis_timeout_seconds": 3.0, "stream_shards": SHARDS}
    return Settings.load(values, {})


@pytest.fixture
async def streams(valkey_cluster: ValkeyCluster) -> AsyncIterator[Streams]:
    settings = settings_for(valkey_cluster)
    made: list[Consumer] = []

    def consumer(name: str) -> Consumer:
        made.append(Consumer(settings, name))
        return made[-1]

    streams = Streams(Publisher(settings), Depth(settings), consumer)
    yield streams
    for part in (*made, streams.publisher, streams.depth):
        await part.close()  # type: ignore[attr-defined]


class TestCluster(StreamSuite):
    async def test_the_shards_lie_on_every_node(self, streams: Streams, valkey_cluster: ValkeyCluster) -> None:
        await streams.publisher.publish([envelope_id() for _ in range(200)])
        assert await streams.depth.depth() == 200
        keys = [node.command(b"KEYS", b"email-processing:*").count(b"email") for node in valkey_cluster.nodes]
        assert sum(keys) == SHARDS
        assert all(keys), keys

    async def test_a_node_is_killed_and_comes_back_empty(self, streams: Streams, valkey_cluster: ValkeyCluster) -> None:
        consumer = streams.consumer("a")
        await streams.publisher.publish([envelope_id() for _ in range(100)])
        await consumer.done(await read_all(consumer, 100))
        valkey_cluster.kill()
        with pytest.raises(StreamUnavailable):
            await streams.publisher.publish([envelope_id() for _ in range(100)])
        await asyncio.to_thread(valkey_cluster.start)
        valkey_cluster.command(b"FLUSHALL")
        wanted = [envelope_id() for _ in range(100)]
        await _until_published(streams, wanted)
        assert await _read_through(consumer, set(wanted)) >= set(wanted)


async def _until_published(streams: Streams, ids: list[object]) -> None:
    """A cluster that has just come together again may say no once more; whoever publishes tries later (sweeper)."""
    for _ in range(20):
        try:
            await streams.publisher.publish(ids)  # type: ignore[arg-type]
        except StreamUnavailable:
            await asyncio.sleep(0.2)
        else:
            return
    pytest.fail("the cluster takes nothing")


async def _read_through(consumer: StreamConsumer, wanted: set[UUID]) -> set[UUID]:
    """Ids, until all of these came. Shards that took theirs before another said no have some of them twice."""
    seen: set[UUID] = set()
    for _ in range(50):
        try:
            seen |= {entry.envelope_id for entry in await consumer.read(100, 200)}
        except StreamUnavailable:
            await asyncio.sleep(0.1)
        if seen >= wanted:
            break
    return seen


async def test_limits_of_many_tenants_in_one_round(valkey_cluster: ValkeyCluster) -> None:
    """Each tenant's key has a slot of its own; one call asks for all of them."""
    shared = SharedLimits(settings_for(valkey_cluster))
    await shared.ping()
    tenants = [uuid4() for _ in range(30)]
    asked = [RateRequest(tenant, 2, None, 0.0, [1, 1, 1]) for tenant in tenants]
    answers = await shared.reserve(asked, 2.0)
    assert [[delay == 0 for delay in each] for each in answers] == [[True, True, False]] * 30
    assert await shared.exchange_sessions("here", dict.fromkeys(tenants, 3)) == dict.fromkeys(tenants, 0)
    assert await shared.exchange_sessions("there", dict.fromkeys(tenants, 1)) == dict.fromkeys(tenants, 3)
    await shared.close()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:6379/1", "unix:///run/redis.sock"])
def test_what_no_cluster_can_be(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_CLUSTER needs"):
        Settings.load({"redis_url": url, "redis_cluster": True}, {})


async def test_limits_of_routes_are_the_fleets_on_a_cluster(valkey_cluster: ValkeyCluster) -> None:
    """Each destination and tenant has a key of its own, wherever it lies; no call names two (decision 0032)."""
    one, other = (Places(settings_for(valkey_cluster)) for _ in range(2))
    for n in range(20):  # over all nodes
        route, tenant = Limit(f"relay mx{n}.example", 2, 5), Limit(f"relay mx{n}.example tenant", 1, 3)
        assert await one.take("a", [route, tenant], 30.0) == 0
        assert await other.take("b", [route, tenant], 30.0) > 0, "the tenant has its one place"
        assert await other.take("c", [route], 30.0) == 0
        await one.renew([("a", [route, tenant]), ("c", [route])], 30.0)
        await one.give_back("a", [route, tenant])
        assert await other.take("b", [route, tenant], 30.0) == 0
        await other.give_back("b", [route, tenant])
        assert await one.take("d", [route, tenant], 30.0) == 0
        assert await other.take("e", [route], 30.0) > 0, "two at once"
        await one.give_back("d", [route, tenant])
        assert await other.take("f", [route, tenant], 30.0) > 50, "the tenant's three of this minute are gone"
    keys = [node.command(b"KEYS", b"smtp-proxy:places:*").count(b"smtp-proxy:places:") for node in valkey_cluster.nodes]
    assert all(keys), keys
    await one.close()
    await other.close()


RATES = Rates(100.0, 0.2)


async def test_a_pace_is_the_fleets_on_a_cluster(valkey_cluster: ValkeyCluster) -> None:
    one, other = (Paces(settings_for(valkey_cluster)) for _ in range(2))
    for n in range(10):
        assert await one.too_fast(f"ses region-{n}", RATES, Backoff(1.0, 60.0, 1.0))
        assert not await other.too_fast(f"ses region-{n}", RATES, Backoff(1.0, 60.0, 1.0))
        turn = await other.take(f"ses region-{n}", RATES, 1, 5.0)
        assert 0.5 < turn.wait_seconds <= 1.0
        assert turn.is_slowed
        await one.went_well(f"ses region-{n}", RATES, 0.01)
    await one.close()
    await other.close()
