"""What leaves can be read in one way only, whatever was stored, and whatever the next hop takes for an end of data."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from fix_ingress import MakeHouse, eventually
from fix_postgres import PostgresServer
from fix_valkey import ValkeyServer
from mail import core_envelope, envelope, job
from naive_servers import NAIVE, STRICT, NaiveServer, Reading, check_wire, texts
from smuggling_vectors import PLACES, SMUGGLED, sequences

from smtp_proxy.config import Settings
from smtp_proxy.delivery.leg import Routes
from smtp_proxy.delivery.route import Route
from smtp_proxy.delivery.smtp import SmtpTransport
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.store import Store
from smtp_proxy.telemetry.lifecycle import Lifecycle
from smtp_proxy.worker import worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

# What an older release, or a hand in the database, might have left there.
STORED: list[bytes] = [sequence.body(place) for sequence in sequences() for place in PLACES] + [
    b"",
    b".",
    b".\r\n",
    b"\r\n.\r\n",
    b".\r\n.\r\n.\r\n",
    b"no line end\r\n.",
    b"A: b\r\n\r\n" + b".\r\n" * 1000,
    b"A: b\r\n\r\nfirst\r\n.\r\n" + SMUGGLED,
    b"A: b\r\n\r\n" + b"x" * 262_143 + b"\r\n.\r\n" + SMUGGLED,  # the end of a piece of a large body
]
IDS = [reading.name for reading in NAIVE]


@pytest.fixture
async def transport() -> AsyncIterator[Any]:
    made: list[SmtpTransport] = []
    route = Route("127.0.0.1", 0, "none", "proxy.example", connections=1, command_timeout_seconds=3.0)

    def to(port: int) -> SmtpTransport:
        made.append(SmtpTransport(Routes(dataclasses.replace(route, port=port, data_timeout_seconds=3.0))))
        return made[-1]

    yield to
    for transport in made:
        await transport.close()


async def careless_relay(server: NaiveServer, body: bytes) -> None:
    """It passes on what it took as it is, with a dot behind it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"EHLO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n" + body + b"\r\n.\r\nQUIT\r\n")
    await reader.read()
    writer.close()


@pytest.mark.parametrize("reading", NAIVE, ids=IDS)
async def test_the_receiver_is_naive(reading: Reading) -> None:
    """The test of the tests: a careless relay does get two messages into each of them."""
    async with NaiveServer(reading).running() as server:
        fooled = 0
        for sequence in sequences():
            server.messages.clear()
            await careless_relay(server, b"A: b\r\n\r\nfirst" + sequence.content + SMUGGLED)
            fooled += any(b"smuggled" in message and b"MAIL FROM" not in message for message in server.messages)
    assert fooled


@pytest.mark.parametrize("reading", [STRICT, *NAIVE], ids=["strict", *IDS])
async def test_each_sees_one_message(reading: Reading, transport: Any) -> None:
    async with NaiveServer(reading).running() as server:
        to = transport(server.port)
        delivered = 0
        for body in STORED:
            (result,) = await to.deliver(job(of=envelope(body)))
            assert result.outcome in (Outcome.DELIVERED, Outcome.REFUSED), result
            assert (result.outcome is Outcome.DELIVERED) or result.enhanced_code == "5.6.0"
            delivered += result.outcome is Outcome.DELIVERED
            assert len(server.messages) == delivered, body[-200:]
        await to.close()
    assert delivered >= len(PLACES) * sum(sequence.outcome == "one" for sequence in sequences())
    for wire in server.wires:
        check_wire(bytes(wire))
    assert sum(len(texts(bytes(wire))) for wire in server.wires) == delivered


@pytest.fixture
def settings(db_settings: Settings, valkey: ValkeyServer) -> Settings:
    return db_settings.model_copy(
        update={
            "redis_url": type(db_settings.redis_url)(valkey.url),
            "smarthost_host": "127.0.0.1",
            "smarthost_tls": "none",
            "sweep_interval_seconds": 0.2,
            "sweep_after_seconds": 1.0,
            "shutdown_timeout_seconds": 5.0,
        }
    )


async def work_until_settled(settings: Settings, server: NaiveServer, postgres: PostgresServer) -> dict[int, int]:
    """Run a worker with this next hop until nothing is queued; how many deliveries stand in each state."""
    working = settings.model_copy(update={"smarthost_port": server.port})
    lifecycle = Lifecycle(working.shutdown_timeout_seconds)
    serving = asyncio.create_task(worker.serve(working, lifecycle))

    async def states() -> dict[int, int]:
        query = "SELECT state, count(*) FROM deliveries GROUP BY state"
        return {row["state"]: row["count"] for row in await postgres.sql(query, database=settings.db_name)}

    async def settled() -> bool:
        return set(await states()) <= {2, 3}

    try:
        await eventually(settled, 30)
    finally:
        lifecycle.stop("the test is over")
        await serving
    return await states()


@pytest.mark.parametrize("reading", [STRICT, NAIVE[7], NAIVE[9]], ids=lambda reading: reading.name)
async def test_from_the_store(settings: Settings, postgres: PostgresServer, reading: Reading) -> None:
    """Put into Postgres behind the core's back; the worker takes it from there."""
    store = await Store.connect(settings, purpose="test")
    await store.accept([core_envelope(body=body) for body in STORED], sweep_after_seconds=0.0)
    await store.close()
    async with NaiveServer(reading).running() as server:
        states = await work_until_settled(settings, server, postgres)
    refused = sum(sequence.outcome == "refused" for sequence in sequences()) * len(PLACES)
    # Each that was refused is reported to its sender, by a message that goes out.
    assert states == {2: len(STORED), 3: refused}
    assert len(server.messages) == states[2]
    assert sum(b"multipart/report" in message for message in server.messages) == refused
    for wire in server.wires:
        check_wire(bytes(wire))


async def test_through_the_front_door(make_house: MakeHouse) -> None:
    """Submitted over TLS, stored, delivered: as many messages arrive as were answered 250, all of them whole."""
    house = await make_house(
        smtp_max_errors_per_session=10_000,
        smarthost_host="127.0.0.1",
        smarthost_tls="none",
        sweep_interval_seconds=0.2,
        sweep_after_seconds=1.0,
    )
    await house.start()
    client = await house.client()
    taken: list[UUID] = []
    for sequence in sequences():
        await client.begin()
        client.send(sequence.text())
        if (answer := await client.reply()).startswith("250"):
            taken.append(UUID(answer.rpartition(" ")[2]))
    bodies = [await house.body(envelope_id) for envelope_id in taken]
    async with NaiveServer(NAIVE[7]).running() as server:
        states = await work_until_settled(house.settings, server, house.postgres)
    assert states == {2: len(taken)}
    assert len(server.messages) == len(taken) == sum(sequence.outcome == "one" for sequence in sequences())
    for wire in server.wires:
        check_wire(bytes(wire))
    unstuffed = [text.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.") for w in server.wires for text in texts(w)]
    for body in bodies:
        assert any(text.endswith(body) for text in unstuffed)
