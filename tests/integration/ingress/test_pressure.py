"""Too much is ready: mail is kept out from the high mark on, until the low one is reached (REQ-INFRA-SCALE-007)."""

from __future__ import annotations

import asyncio
import contextlib
import http.client

import pytest
from fix_ingress import House, MakeHouse, eventually
from fix_valkey import ValkeyServer, free_port
from senders import Refused

from smtp_proxy.ingress import pressure
from smtp_proxy.telemetry.metrics import REGISTRY

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

HIGH, LOW = 5, 2


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the depth every few milliseconds."""
    monkeypatch.setattr(pressure, "_DEPTH_SECONDS", 0.02)
    monkeypatch.setattr(pressure, "_STORE_DEPTH_SECONDS", 0.02)


@pytest.fixture
async def house(make_house: MakeHouse) -> House:
    made = await make_house(ingress_ready_depth_high=HIGH, ingress_ready_depth_low=LOW)
    await made.start()
    return made


def gate_is(closed: int) -> bool:
    return REGISTRY.get_sample_value("smtp_gate_closed", {"reason": "busy"}) == closed


async def seen(depth: int, *, closed: int) -> None:
    """The service has seen this depth, and this is what it makes of it."""

    async def so() -> bool:
        return REGISTRY.get_sample_value("smtp_queue_depth") == depth

    await eventually(so)
    assert gate_is(closed)


def leave(valkey: ValkeyServer, entries: int) -> None:
    """As if a worker had done all but so many."""
    valkey.command(b"XTRIM", b"email-processing", b"MAXLEN", str(entries).encode())


async def test_between_two_marks(house: House, valkey: ValkeyServer) -> None:
    early, other = await house.client(), await house.client()
    for _ in range(HIGH):
        await early.submit()
    await seen(HIGH, closed=0)
    await early.submit()
    await seen(HIGH + 1, closed=1)

    assert (await early.say("MAIL FROM:<a@sender.example>")).startswith("421 4.3.2")
    assert await early.is_closed()
    late = await house.connected()
    assert (await late.reply()).startswith("421 4.3.2")
    assert await late.is_closed()

    leave(valkey, LOW + 1)
    await seen(LOW + 1, closed=1)
    assert (await other.say("NOOP")).startswith("250"), "who asks for nothing may stay"
    leave(valkey, LOW)
    await seen(LOW, closed=0)
    await other.submit()
    await (await house.client()).submit()
    assert len(await house.stored()) == HIGH + 1 + 2


async def test_whoever_has_begun_may_finish(house: House) -> None:
    begun, other = await house.client(), await house.client()
    await begun.begin()
    for _ in range(HIGH + 1):
        await other.submit()
    await seen(HIGH + 1, closed=1)
    begun.send(b"Subject: late\r\n\r\nx\r\n.\r\n")
    assert (await begun.reply()).startswith("250 2.0.0 queued")


async def test_without_valkey_postgres_is_counted(house: House, valkey: ValkeyServer) -> None:
    client = await house.client()
    await asyncio.to_thread(valkey.kill)
    for _ in range(HIGH + 1):
        await client.submit()
    await seen(HIGH + 1, closed=1)
    assert (await client.say("MAIL FROM:<a@sender.example>")).startswith("421 4.3.2")
    await house.sql("UPDATE deliveries SET state = 2")
    await seen(0, closed=0)
    await (await house.client()).submit()


async def test_more_connections_than_allowed(make_house: MakeHouse) -> None:
    house = await make_house(smtp_max_connections=2)
    await house.start()
    first, _second = await house.client(), await house.client()
    third = await house.connected("starttls")
    assert (await third.reply()).startswith("421 4.3.2")
    assert await third.is_closed()
    await first.hang_up()
    await eventually(lambda: house.has_counted("connections_active", 1))
    await (await house.client("starttls")).submit()


async def test_memory_is_bounded_and_everybody_gets_through(make_house: MakeHouse) -> None:
    """Ten messages of 1 MiB with 1 MiB allowed: some wait in their sockets, all are taken."""
    house = await make_house(smtp_max_in_flight_bytes=1024 * 1024)
    await house.start()
    clients = [await house.client() for _ in range(10)]
    body = (b"x" * 98 + b"\r\n") * 10_000
    sent = await asyncio.gather(*(client.submit(body) for client in clients))
    assert sorted(sent) == await house.stored()
    assert not await house.has_counted("budget_waits_total", 0)
    assert await house.has_counted("bytes_in_flight", 0)


async def test_readiness_says_that_mail_cannot_be_stored(make_house: MakeHouse) -> None:
    house = await make_house(health_port=free_port())
    await house.start()

    async def is_ready() -> bool:
        with contextlib.suppress(ConnectionRefusedError):  # The health listener opens after those for mail.
            return (await ready(house))[0] == 200
        return False

    await eventually(is_ready)
    client = await house.client()
    await asyncio.to_thread(house.postgres.kill)
    await client.begin()
    client.send(b"x\r\n.\r\n")
    await client.expect(451)
    status, body = await ready(house)
    assert (status, b"mail can not be stored" in body) == (503, True)
    await asyncio.to_thread(house.postgres.start)
    await eventually(is_ready)


async def test_a_target_stays_while_postgres_is_away(make_house: MakeHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load balancers have ECS end who fails what they ask; StoreDown says it instead, without mail too."""
    monkeypatch.setattr(pressure, "_QUIET_SECONDS", 0.1)
    house = await make_house(health_port=free_port())
    await house.start()

    async def says(path: str, status: int) -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            return (await ready(house, path))[0] == status
        return False

    await eventually(lambda: says("/targetz", 200))
    client = await house.client()
    await asyncio.to_thread(house.postgres.kill)

    async def is_known() -> bool:
        return REGISTRY.get_sample_value("smtp_gate_closed", {"reason": "store_down"}) == 1

    await eventually(is_known)
    for _ in range(20):
        status, body = await ready(house, "/targetz")
        assert (status, b"mail can not be stored" in body) == (200, True)
        assert await says("/readyz", 503)
    assert (await client.say("MAIL FROM:<a@sender.example>")).startswith("451")
    await asyncio.to_thread(house.postgres.start)
    await eventually(lambda: says("/readyz", 200))
    await (await house.client()).submit()


async def test_a_target_leaves_before_its_sessions_end(make_house: MakeHouse) -> None:
    house = await make_house(health_port=free_port(), shutdown_delay_seconds=2)
    await house.start()

    async def says(status: int) -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            return (await ready(house, "/targetz"))[0] == status
        return False

    await eventually(lambda: says(200))
    client = await house.client()
    house.terminate()
    await eventually(lambda: says(503))
    envelope_id = await client.submit()
    assert envelope_id in await house.stored(), "traffic goes elsewhere, and who is here is served"


async def test_readiness_does_not_trust_a_postgres_that_only_answers(make_house: MakeHouse) -> None:
    house = await make_house(health_port=free_port())
    await house.start()
    client = await house.client()
    await house.fill_disk()
    with pytest.raises(Refused, match="451"):
        await client.submit()
    for _ in range(50):
        status, body = await ready(house)
        assert (status, b"mail can not be stored" in body) == (503, True)
        await asyncio.sleep(0.02)


async def ready(house: House, path: str = "/readyz") -> tuple[int, bytes]:
    """What /readyz says, or another path."""

    def ask() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", house.settings.health_port, timeout=5)
        connection.request("GET", path)
        answer = connection.getresponse()
        try:
            return answer.status, answer.read()
        finally:
            connection.close()

    return await asyncio.to_thread(ask)
