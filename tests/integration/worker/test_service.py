"""The whole worker between a real Postgres, a real Valkey and a listening sink, while things fall over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fix_postgres import PostgresServer
from fix_valkey import ValkeyServer
from mail import core_envelope
from previous_release import previous_release
from scripted_server import ScriptedServer

from smtp_proxy.config import Settings
from smtp_proxy.errors import StoreUnavailable, StreamUnavailable
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.model.lane import Lane
from smtp_proxy.store import Store
from smtp_proxy.stream.depth import Depth
from smtp_proxy.stream.keys import lane_keys
from smtp_proxy.stream.publisher import Publisher
from smtp_proxy.telemetry.lifecycle import Lifecycle
from smtp_proxy.worker import worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]


@dataclass
class House:
    """What the worker lives between. `accepted` are the bodies' marks, as the ledger of what must arrive."""

    settings: Settings
    sink: ScriptedServer
    store: Store
    publisher: Publisher
    accepted: list[str] = field(default_factory=list)
    ids: list[UUID] = field(default_factory=list)

    async def accept(self, count: int) -> None:
        """As the ingress does: commit, then publish, and do not mind if that fails."""
        start = len(self.accepted)
        marks = [f"mark-{start + n}" for n in range(count)]
        batch = [core_envelope(body=f"Subject: {mark}\r\n\r\n.dot\r\n".encode()) for mark in marks]
        while True:
            try:
                await self.store.accept(batch, sweep_after_seconds=self.settings.sweep_after_seconds)
                break
            except StoreUnavailable:
                await asyncio.sleep(0.1)
        ids = [UUID(bytes=row[0]) for row in batch]
        self.accepted += marks
        self.ids += ids
        with contextlib.suppress(StreamUnavailable):
            await self.publisher.publish(ids)

    def arrived(self) -> Counter[str]:
        return Counter(
            received.data.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode() for received in self.sink.received
        )

    async def all_arrived(self, seconds: float = 30.0) -> Counter[str]:
        deadline = time.monotonic() + seconds
        while (missing := set(self.accepted) - set(self.arrived())) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        assert not missing, f"{len(missing)} of {len(self.accepted)} lost"
        return self.arrived()

    async def all_settled(self, seconds: float = 15.0) -> None:
        deadline = time.monotonic() + seconds
        query = "SELECT state, count(*) FROM deliveries GROUP BY state"
        while time.monotonic() < deadline:
            with contextlib.suppress(StoreUnavailable):
                async with self.store._connection("looking") as connection:
                    states = {row["state"]: row["count"] for row in await connection.fetch(query)}
                if states == {2: len(self.accepted)}:
                    return
            await asyncio.sleep(0.05)
        raise AssertionError(f"not all delivered according to Postgres: {states}")


@pytest.fixture
async def house(db_settings: Settings, valkey: ValkeyServer) -> AsyncIterator[House]:
    sink = ScriptedServer()
    async with sink.running():
        settings = db_settings.model_copy(
            update={
                "redis_url": type(db_settings.redis_url)(valkey.url),
                "redis_timeout_seconds": 1.0,
                "smarthost_port": sink.port,
                "smarthost_tls": "none",
                "worker_lease_seconds": 3.0,
                "sweep_interval_seconds": 0.2,
                "sweep_after_seconds": 1.0,
                "retry_initial_seconds": 0.5,
                "shutdown_timeout_seconds": 5.0,
                "db_timeout_seconds": 2.0,
            }
        )
        store = await Store.connect(settings, purpose="test")
        publisher = Publisher(settings)
        yield House(settings, sink, store, publisher)
        await publisher.close()
        await store.close()


@contextlib.asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[Lifecycle]:
    """A worker in this process."""
    lifecycle = Lifecycle(settings.shutdown_timeout_seconds)
    serving = asyncio.create_task(worker.serve(settings, lifecycle))
    try:
        yield lifecycle
    finally:
        lifecycle.stop("the test is over")
        await serving


@contextlib.asynccontextmanager
async def worker_process(settings: Settings, *path: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker in a process of its own, that can be killed."""
    code = (
        "import asyncio; from smtp_proxy.config import Settings; from smtp_proxy.worker.worker import run; "
        "asyncio.run(run(Settings.load()))"
    )
    environment = {**os.environ, **settings.environment(), "PYTHONPATH": os.pathsep.join([*path, *sys.path])}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, env=environment)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_postgres_that_is_slow_at_the_start_is_waited_for(
    house: House, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It answers the connection and not the first question, as one that recovers; the worker stays, and delivers."""
    settings = house.settings.model_copy(update={"db_timeout_seconds": 0.3})
    await house.accept(3)
    async with contextlib.AsyncExitStack() as later:
        async with postgres.locked("domains", database=settings.db_name):
            async with working(settings):
                await _waits(caplog, "listing domains")
            caplog.clear()  # it left when it was told to, and here is the next
            await later.enter_async_context(working(settings))
            await _waits(caplog, "listing domains")
        await house.all_arrived()


async def _waits(caplog: pytest.LogCaptureFixture, for_what: str) -> None:
    async with asyncio.timeout(10):
        while not any("waiting for Postgres" in m and for_what in m for m in caplog.messages):
            await asyncio.sleep(0.02)


async def test_every_message_arrives_exactly_once(house: House) -> None:
    async with working(house.settings):
        for _ in range(10):
            await house.accept(50)
        arrived = await house.all_arrived()
        await house.all_settled()
        depth = Depth(house.settings)
        async with asyncio.timeout(5):
            while await depth.depth():
                await asyncio.sleep(0.02)
        await depth.close()
    assert set(arrived.values()) == {1}
    message = await house.store.message(house.ids[0])
    (attempt,) = message.deliveries[0].attempts
    assert (attempt.reply_code, attempt.remote) == (250, f"127.0.0.1:{house.sink.port}")


async def test_deferred_mail_comes_again(house: House) -> None:
    answers: dict[bytes, int] = {}

    def dot(data: bytes) -> bytes:
        mark = data.partition(b"Subject: ")[2].partition(b"\r\n")[0]
        answers[mark] = answers.get(mark, 0) + 1
        return b"451 4.3.0 not yet\r\n" if answers[mark] < 3 else b"250 2.0.0 at last\r\n"

    house.sink.answers["DOT"] = dot
    async with working(house.settings):
        await house.accept(20)
        await house.all_arrived()
        await house.all_settled()
    message = await house.store.message(house.ids[0])
    assert [attempt.reply_code for attempt in message.deliveries[0].attempts] == [451, 451, 250]


async def test_flushall_in_the_middle(house: House, valkey: ValkeyServer) -> None:
    async with working(house.settings):
        for n in range(10):
            await house.accept(40)
            if n in (3, 6):
                valkey.command(b"FLUSHALL")
        arrived = await house.all_arrived()
        await house.all_settled()
    assert set(arrived.values()) == {1}


async def test_valkey_dies_and_comes_back(house: House, valkey: ValkeyServer) -> None:
    async with working(house.settings):
        await house.accept(100)
        await asyncio.to_thread(valkey.kill)
        await house.accept(100)
        assert set((await house.all_arrived()).values()) == {1}, "mail flows without Redis"
        await asyncio.to_thread(valkey.start)
        await house.accept(100)
        arrived = await house.all_arrived()
        await house.all_settled()
    assert set(arrived.values()) == {1}


async def test_valkey_stands_still(house: House, valkey: ValkeyServer) -> None:
    async with working(house.settings):
        await house.accept(50)
        valkey.pause()
        try:
            await house.accept(50)
            arrived = await house.all_arrived()
        finally:
            valkey.resume()
        await house.all_settled()
    assert set(arrived.values()) == {1}


async def test_the_worker_starts_before_its_database(house: House, postgres: PostgresServer) -> None:
    await asyncio.to_thread(postgres.stop)
    async with working(house.settings):
        await asyncio.sleep(0.5)
        await asyncio.to_thread(postgres.start)
        await house.accept(10)
        await house.all_arrived()


async def test_postgres_dies_in_the_middle(house: House, postgres: PostgresServer) -> None:
    """Outcomes are kept until they can be recorded: nothing is lost, and nothing is sent again."""
    async with working(house.settings):
        await house.accept(300)
        while len(house.sink.received) < 50:
            await asyncio.sleep(0.005)
        await asyncio.to_thread(postgres.kill)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(postgres.start)
        await house.accept(100)
        arrived = await house.all_arrived()
        await house.all_settled()
    assert set(arrived.values()) == {1}


async def test_a_killed_worker_is_replaced(house: House) -> None:
    """Kill -9 in the middle: another takes over when the leases have run out; nothing is lost."""
    async with worker_process(house.settings) as doomed:
        await house.accept(400)
        while len(house.sink.received) < 100:
            await asyncio.sleep(0.002)
        doomed.kill()
        await doomed.wait()
    async with working(house.settings):
        arrived = await house.all_arrived()
        await house.all_settled()
    twice = sum(count - 1 for count in arrived.values())
    assert twice <= house.settings.worker_concurrency + house.settings.worker_batch_messages
    assert set(arrived.values()) <= {1, 2}


async def test_two_workers_share(house: House) -> None:
    async with working(house.settings), worker_process(house.settings):
        for _ in range(10):
            await house.accept(60)
            await asyncio.sleep(0.1)
        arrived = await house.all_arrived()
        await house.all_settled()
    assert set(arrived.values()) == {1}


async def test_sigterm_finishes_and_gives_back(house: House) -> None:
    async with worker_process(house.settings) as leaving:
        await house.accept(1000)
        while len(house.sink.received) < 20:
            await asyncio.sleep(0.002)
        leaving.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(leaving.wait(), 8) == 0
    async with house.store._connection("looking") as connection:
        sending: Any = await connection.fetchval("SELECT count(*) FROM deliveries WHERE state = 1")
        delivered: Any = await connection.fetchval("SELECT count(*) FROM deliveries WHERE state = 2")
    assert sending == 0
    assert delivered == len(house.sink.received), "what arrived is recorded"
    async with working(house.settings):
        arrived = await house.all_arrived()
    assert set(arrived.values()) == {1}


async def test_a_lease_outlives_a_long_delivery(house: House) -> None:
    answered = asyncio.get_running_loop().time()
    house.sink.delay_seconds = 5.0
    async with working(house.settings):
        await house.accept(3)
        arrived = await house.all_arrived()
        await house.all_settled()
    assert asyncio.get_running_loop().time() - answered > 5.0 > house.settings.worker_lease_seconds
    assert set(arrived.values()) == {1}


# -- lanes

BACKLOG = 2000


async def accept_in(house: House, mark: str, count: int, lane: Lane, *, publish: bool = True) -> list[UUID]:
    body = f"Subject: {mark}\r\n\r\nx\r\n".encode()
    batch = [core_envelope(body=body, lane=lane) for _ in range(count)]
    await house.store.accept(batch, sweep_after_seconds=house.settings.sweep_after_seconds)
    ids = [UUID(bytes=row[0]) for row in batch]
    if publish:
        await house.publisher.publish(ids, lane)
    return ids


async def arrived(house: House, mark: str, count: int, seconds: float = 60.0) -> float:
    """Wait until so many have arrived; returns for how long that took."""
    began = time.monotonic()
    while house.arrived()[mark] < count:
        assert time.monotonic() - began < seconds, f"{house.arrived()} after {seconds} s"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


async def test_a_transactional_message_passes_a_backlog_of_bulk(house: House) -> None:
    house.settings = house.settings.model_copy(update={"worker_concurrency": 8, "smarthost_connections": 8})
    house.sink.delay_seconds = 0.05  # eight at a time: some 150 a second
    await accept_in(house, "bulk", BACKLOG, Lane.BULK)
    async with working(house.settings):
        await arrived(house, "bulk", 50)
        before = house.arrived()["bulk"]
        (urgent,) = await accept_in(house, "urgent", 1, Lane.TRANSACTIONAL)
        await arrived(house, "urgent", 1)
        passed = house.arrived()["bulk"] - before
        assert passed < 300, f"{passed} bulk messages of {BACKLOG} went before it"
        message = await house.store.message(urgent)
        assert message.deliveries[0].state in (DeliveryState.SENDING, DeliveryState.DELIVERED)


async def test_bulk_goes_on_through_a_flood(house: House) -> None:
    house.settings = house.settings.model_copy(update={"worker_concurrency": 8, "smarthost_connections": 8})
    house.sink.delay_seconds = 0.02
    await accept_in(house, "bulk", 200, Lane.BULK)
    await accept_in(house, "urgent", 1500, Lane.TRANSACTIONAL)
    async with working(house.settings):
        await arrived(house, "urgent", 600)
        found = house.arrived()
    share = found["bulk"] / (found["bulk"] + found["urgent"])
    assert 0.08 < share < 0.4, found


async def test_both_lanes_are_filled_again_after_flushall(house: House, valkey: ValkeyServer) -> None:
    async with working(house.settings):
        await accept_in(house, "bulk", 300, Lane.BULK, publish=False)
        await accept_in(house, "urgent", 50, Lane.TRANSACTIONAL, publish=False)
        assert valkey.command(b"FLUSHALL") == b"+OK\r\n"
        await arrived(house, "urgent", 50)
        await arrived(house, "bulk", 300)
        depth = Depth(house.settings)
        async with asyncio.timeout(10):
            while await depth.depth():
                await asyncio.sleep(0.05)
        await depth.close()
    for (key,) in lane_keys(house.settings.stream_name, 1).values():
        added = re.search(rb"entries-added\r\n:([0-9]+)", valkey.command(b"XINFO", b"STREAM", key.encode()))
        assert added is not None, f"there is no stream {key}"
        assert int(added[1]) > 0, f"nothing was put into {key}: its mail went another way"


async def test_an_entry_of_the_previous_release_speaks_of_bulk_mail_too(house: House) -> None:
    """It knows one stream, and sweeps all that is due into that."""
    ids = await accept_in(house, "bulk", 20, Lane.BULK, publish=False)
    await house.publisher.publish(ids)
    async with working(house.settings):
        await arrived(house, "bulk", 20)
    assert house.arrived()["bulk"] == 20


async def test_a_worker_of_the_previous_release_delivers_bulk_mail_too(house: House, tmp_path: Path) -> None:
    """It does not read that stream, and finds in Postgres what is due."""
    await accept_in(house, "bulk", 20, Lane.BULK)
    async with worker_process(house.settings, str(previous_release(tmp_path))):
        await arrived(house, "bulk", 20)
    assert house.arrived()["bulk"] == 20
