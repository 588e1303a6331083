"""One destination that stands, one that is dead, and one that is fast, behind the same worker with few turns."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from fix_postgres import PostgresServer
from fix_valkey import ValkeyServer
from mail import core_envelope
from scripted_server import STALL, ScriptedServer

from smtp_proxy.config import Settings
from smtp_proxy.model.attempt import Kind
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.store import Store
from smtp_proxy.stream.publisher import Publisher
from smtp_proxy.telemetry.lifecycle import Lifecycle
from smtp_proxy.worker import worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]


ROUTES = """
default = "fast"
[routes.fast]
hosts = ["127.0.0.1:{fast}"]
tls = "none"
connections = 8
[routes.stalled]
hosts = ["127.0.0.1:{stalled}"]
tls = "none"
connections = 8
[routes.dead]
hosts = ["127.0.0.1:{dead}"]
tls = "none"
connections = 8
[routes.limited]
hosts = ["127.0.0.1:{fast}"]
tls = "none"
messages_per_minute = 10
fleet_connections = 2
[[rules]]
domain = "limited.example"
routes = ["limited"]
[[rules]]
domain = "stalled.example"
routes = ["stalled"]
[[rules]]
domain = "dead.example"
routes = ["dead"]
"""


@dataclass
class House:
    settings: Settings
    store: Store
    publisher: Publisher
    fast: ScriptedServer
    stalled: ScriptedServer

    async def accept(self, *recipient_lists: list[str]) -> list[UUID]:
        batch = [core_envelope(*recipients) for recipients in recipient_lists]
        await self.store.accept(batch, sweep_after_seconds=self.settings.sweep_after_seconds)
        ids = [UUID(bytes=row[0]) for row in batch]
        await self.publisher.publish(ids)
        return ids

    async def fast_has(self, count: int, seconds: float) -> float:
        """Wait until so many arrived; returns how long that took."""
        began = time.monotonic()
        async with asyncio.timeout(seconds):
            while len(self.fast.received) < count:
                await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def states(self) -> Counter[int]:
        async with self.store._connection("looking") as connection:
            rows = await connection.fetch("SELECT state, count(*) FROM deliveries GROUP BY state")
        return Counter({row["state"]: row["count"] for row in rows})


@pytest.fixture
async def house(
    db_settings: Settings, postgres: PostgresServer, valkey: ValkeyServer, unused_tcp_port: int, tmp_path: Path
) -> AsyncIterator[House]:
    fast, stalled = ScriptedServer(), ScriptedServer({"MAIL": STALL})
    async with fast.running(), stalled.running():
        routes = tmp_path / "routes.toml"
        routes.write_text(ROUTES.format(fast=fast.port, stalled=stalled.port, dead=unused_tcp_port))
        settings = db_settings.model_copy(
            update={
                "redis_url": type(db_settings.redis_url)(valkey.url),
                "worker_concurrency": 8,
                "routes_file": routes,
                "worker_lease_seconds": 6.0,
                "sweep_interval_seconds": 0.2,
                "sweep_after_seconds": 2.0,
                "shutdown_timeout_seconds": 0.5,
            }
        )
        store = await Store.connect(settings, purpose="test")
        publisher = Publisher(settings)
        yield House(settings, store, publisher, fast, stalled)
        await publisher.close()
        await store.close()


@contextlib.asynccontextmanager
async def working(house: House) -> AsyncIterator[None]:
    lifecycle = Lifecycle(house.settings.shutdown_timeout_seconds)
    serving = asyncio.create_task(worker.serve(house.settings, lifecycle))
    try:
        yield
    finally:
        lifecycle.stop("the test is over")
        await serving


async def test_a_destination_that_stands_delays_no_other(house: House) -> None:
    """1,000 messages to a server that never answers lie before and among 500 to one that does."""
    await house.accept(*[["x@stalled.example"]] * 600)
    async with working(house):
        await asyncio.sleep(2.0)
        began = time.monotonic()
        for _ in range(10):
            await house.accept(*[["x@stalled.example"], ["x@fast.example"]] * 40, *[["x@fast.example"]] * 10)
        await house.fast_has(500, 15.0)
        seconds = time.monotonic() - began
        assert len(house.stalled.received) == 0
        assert house.stalled.connections <= 8
        # What does not get a place goes back: no lease is held for it, nor an attempt written down.
        await asyncio.sleep(8.0)
        states = await house.states()
        assert states[DeliveryState.DELIVERED] == 500
        assert states[DeliveryState.SENDING] <= 8 + 60
        async with house.store._connection("looking") as connection:
            assert await connection.fetchval("SELECT count(*) FROM attempts WHERE outcome <> 1") == 0
        assert seconds < 10.0


async def test_a_dead_destination_is_left_alone_after_a_few_failures(house: House) -> None:
    async with working(house):
        ids = await house.accept(*[["x@dead.example"]] * 200, *[["x@fast.example"]] * 200)
        await house.fast_has(200, 10.0)
        async with asyncio.timeout(10):
            while (await house.states())[DeliveryState.SENDING]:
                await asyncio.sleep(0.05)
        attempts = [
            attempt for i in ids[:200] for d in (await house.store.message(i)).deliveries for attempt in d.attempts
        ]
        assert len(attempts) == 200
        tried = [a for a in attempts if "cannot connect" in a.reply_text and "not tried" not in a.reply_text]
        blocked = [a for a in attempts if "not tried: " in a.reply_text]
        assert len(tried) + len(blocked) == 200
        assert 5 <= len(tried) <= 16
        assert {a.kind for a in blocked} == {Kind.LOCAL}


async def test_one_message_to_both_delivers_to_the_one_that_answers(house: House) -> None:
    async with working(house):
        await house.accept(["x@stalled.example", "x@fast.example"])
        await house.fast_has(1, 5.0)


async def test_a_routes_limit_holds_over_two_workers_and_delays_no_other(house: House) -> None:
    async with working(house), working(house):
        await house.accept(*[["x@limited.example"], ["x@fast.example"]] * 50)
        await house.fast_has(60, 10.0)
        await asyncio.sleep(2.0)
        assert len(house.fast.received) == 60
        assert (await house.states())[DeliveryState.DELIVERED] == 60
