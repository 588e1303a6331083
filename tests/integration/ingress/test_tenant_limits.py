"""A tenant at its limits, on the whole service: it hears so, and nobody else does."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from fix_ingress import PASSWORD, Client, House, MakeHouse, eventually, queued_id, stuffed
from fix_valkey import ValkeyServer

from smtp_proxy.ingress import held as ingress_held
from smtp_proxy.ingress import limits as ingress_limits
from smtp_proxy.ingress import serve
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.model.limits import AtLimit, TenantLimits
from smtp_proxy.store.store import Store
from smtp_proxy.stream.depth import Depth
from smtp_proxy.stream.limits import SharedLimits
from smtp_proxy.stream.publisher import Publisher
from smtp_proxy.telemetry.lifecycle import Lifecycle

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

OTHER = "app@other.example"
OVER_RATE = "450 4.7.1 "


@pytest.fixture
async def house(house: House, password_hash: str) -> House:
    """With a second tenant, who has no limit."""
    other = await house.store.create_tenant("other")
    await house.store.create_credential(other.id, OTHER, password_hash)
    return house


async def client_of(house: House, username: str) -> Client:
    client = await house.client(log_in=False)
    assert (await client.log_in(username, PASSWORD)).startswith("235")
    return client


Limit = Callable[..., Awaitable[None]]


@pytest.fixture
def limit(caplog: pytest.LogCaptureFixture) -> Limit:
    """`await limit(house, limits)`: and wait until so many services go by it."""
    caplog.set_level("INFO", ingress_limits.log.name)

    async def set_limits(house: House, limits: TenantLimits, services: int = 1) -> None:
        before = heard()
        await house.store.set_tenant_limits("acme", limits)

        async def is_heard() -> bool:
            return heard() == before + services

        await eventually(is_heard)

    def heard() -> int:
        return sum(vars(record).get("action") == "limits_changed" for record in caplog.records)

    return set_limits


async def offered(client: Client, *recipients: str) -> str:
    """The reply to a message, wherever it comes."""
    reply = await client.say("MAIL FROM:<a@sender.example>")
    if not reply.startswith("250"):
        return reply
    for recipient in recipients or ("b@rcpt.example",):
        await client.command(250, f"RCPT TO:<{recipient}>")
    await client.command(354, "DATA")
    client.send(stuffed(b"x\r\n"))
    return await client.reply()


async def refused_at_dot(client: Client) -> str:
    await client.begin()
    client.send(stuffed(b"x\r\n"))
    return await client.reply()


async def test_over_its_rate_it_hears_450_and_nobody_else_does(house: House, limit: Limit) -> None:
    await limit(house, TenantLimits(messages_per_minute=3))
    acme, another, other = await house.client(), await house.client(), await client_of(house, OTHER)
    await another.begin()  # Before the limit is reached.
    for _ in range(3):
        assert (await offered(acme)).startswith("250")
    assert (await offered(acme)).startswith(OVER_RATE)
    assert (await acme.say("MAIL FROM:<a@sender.example>")).startswith(OVER_RATE), "without sending the text"
    another.send(stuffed(b"x\r\n"))
    assert (await another.reply()).startswith(OVER_RATE)
    late = await house.client()
    assert (await late.say("MAIL FROM:<a@sender.example>")).startswith(OVER_RATE)
    for _ in range(10):
        assert (await offered(other)).startswith("250")
    assert len(await house.stored()) == 3 + 10
    assert await house.has_counted("over_rate_total", 2)
    assert await house.has_counted("deferred_total", 0)

    await limit(house, TenantLimits(messages_per_minute=1000))
    assert (await offered(acme)).startswith("250"), "the same session, as soon as it may"


async def test_recipients_count_as_well(house: House, limit: Limit) -> None:
    await limit(house, TenantLimits(recipients_per_minute=5))
    first, second, third = [await house.client() for _ in range(3)]
    await second.begin("1@rcpt.example", "2@rcpt.example", "3@rcpt.example")
    await third.begin("1@rcpt.example", "2@rcpt.example")
    for client, code in ((first, "250"), (second, OVER_RATE), (third, "250")):
        if client is first:
            await client.begin("1@rcpt.example", "2@rcpt.example", "3@rcpt.example")
        client.send(stuffed(b"x\r\n"))
        assert (await client.reply()).startswith(code)


async def test_held_until_it_is_released(house: House, limit: Limit) -> None:
    await limit(house, TenantLimits(messages_per_minute=1, at_limit=AtLimit.HOLD))
    client = await house.client()
    ready, held, too = [await client.submit() for _ in range(3)]
    await eventually(lambda: house.is_queued(ready))
    summaries = await house.store.list_messages(state=DeliveryState.HELD)
    assert [summary.id for summary in summaries] == [too, held]
    assert not await house.is_queued(held)
    assert await house.store.release_held([held]) == [held]
    assert await house.store.sweep(10, 15) == [held]


async def test_no_more_is_held_than_may_be(
    make_house: MakeHouse, limit: Limit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Held mail once had no end but the disk's."""
    monkeypatch.setattr(ingress_held, "_EVERY_SECONDS", (0.05, 0.05))
    house = await make_house(tenant_held_max_messages=3)
    await house.start()
    await limit(house, TenantLimits(messages_per_minute=1, at_limit=AtLimit.HOLD))
    client, two = await house.client(), ("b@rcpt.example", "c@rcpt.example")
    assert [(await offered(client, *two))[:3] for _ in range(4)] == ["250"] * 4
    assert (await offered(client, *two)).startswith(OVER_RATE)
    assert len(await house.stored()) == 4
    assert "tenant acme is over its rate; its mail is rejected, since as much of it is held as may be" in caplog.text

    newest, *_ = await house.store.list_messages(state=DeliveryState.HELD)
    await house.store.release_held([newest.id])

    async def is_taken_again() -> bool:
        return (await offered(client, *two)).startswith("250")

    await eventually(is_taken_again)
    assert (await offered(client, *two)).startswith(OVER_RATE)
    assert len(await house.store.list_messages(state=DeliveryState.HELD)) == 3


async def test_put_off_until_it_may_leave(house: House, limit: Limit) -> None:
    await limit(house, TenantLimits(messages_per_minute=2, at_limit=AtLimit.DELAY))
    client = await house.client()
    sent = [await client.submit() for _ in range(5)]
    rows = await house.sql(
        "SELECT extract(epoch FROM next_attempt_at - now())::float AS seconds FROM deliveries ORDER BY envelope_id"
    )
    first, second, third, fourth, fifth = (row["seconds"] for row in rows)
    assert max(first, second) <= 0
    assert all(50 < seconds <= 61 for seconds in (third, fourth))
    assert 110 < fifth <= 122
    await eventually(lambda: house.is_queued(*sent[:2]))
    assert not await house.is_queued(sent[2])


async def test_sessions_at_once(house: House, limit: Limit) -> None:
    await limit(house, TenantLimits(sessions=2))
    first, _second = await house.client(), await house.client("starttls")
    third = await house.client(log_in=False)
    assert (await third.log_in()).startswith("421 4.7.0 Too many sessions")
    assert await third.is_closed()
    await (await client_of(house, OTHER)).submit()
    await first.hang_up()
    await eventually(lambda: house.has_counted("connections_active", 2))
    await (await house.client()).submit()
    assert await house.has_counted("refused_sessions_total", 1)


async def test_sessions_of_one_credential_at_once(make_house: MakeHouse, password_hash: str) -> None:
    """Another one of the same tenant is not touched, and a seat that is left is free at once."""
    house = await make_house(smtp_max_sessions_per_credential=2)
    await house.start()
    acme = await house.store.tenant_by_name("acme")
    assert acme is not None
    await house.store.create_credential(acme.id, OTHER, password_hash)
    first, second = await house.client(), await house.client("tls")
    third = await house.client(log_in=False)
    assert (await third.log_in()).startswith("421 4.7.0 Too many sessions")
    assert await third.is_closed()
    await (await client_of(house, OTHER)).submit()
    assert await house.has_counted("refused_sessions_total", 1)
    await first.hang_up()
    await eventually(lambda: house.has_counted("connections_active", 2))
    await (await house.client("starttls")).submit()
    await second.submit()


async def test_one_message_over_its_rate_keeps_none_of_its_batch_from_the_fast_path(
    house: House, limit: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is held beside it is stored as it is to be."""
    await limit(house, TenantLimits(messages_per_minute=1, at_limit=AtLimit.HOLD))
    acme, others = await house.client(), [await client_of(house, OTHER) for _ in range(8)]
    await acme.submit()
    encoded: list[int] = []
    slow: list[int] = []
    accept, accept_encoded = Store.accept, Store.accept_encoded

    async def counting(store: Store, batch: Any, **arguments: Any) -> None:
        slow.append(len(batch))
        await accept(store, batch, **arguments)

    async def counting_encoded(store: Store, encoder: Any, messages: int, **arguments: Any) -> None:
        encoded.append(messages)
        await accept_encoded(store, encoder, messages, **arguments)

    monkeypatch.setattr(Store, "accept", counting)
    monkeypatch.setattr(Store, "accept_encoded", counting_encoded)
    for client in [acme, *others]:
        await client.begin()
    for client in [acme, *others]:
        client.send(stuffed(b"x\r\n"))
    held, *ready = [queued_id(await client.reply()) for client in [acme, *others]]
    assert (slow, sum(encoded)) == ([1], 8)
    assert [summary.id for summary in await house.store.list_messages(state=DeliveryState.HELD)] == [held]
    await eventually(lambda: house.is_queued(*ready))


@contextlib.asynccontextmanager
async def neighbour_of(house: House) -> AsyncIterator[House]:
    """Another service on the same database and the same Valkey. It is not the one that hears signals."""
    settings = house.settings
    core = serve.make_core(settings, serve.read_certificates(settings))
    parts = Publisher(settings), Depth(settings), SharedLimits(settings)
    service = serve.Service(settings, Lifecycle(1), house.store, core, *parts)
    neighbour = dataclasses.replace(house, addresses={}, _serving=None, _clients=[])
    try:
        neighbour.addresses.update(service.start())
        yield neighbour
    finally:
        for client in neighbour._clients:
            await client.vanish()
        await service.leave()
        for part in parts:
            await part.close()


async def test_sessions_over_the_fleet(house: House, limit: Limit) -> None:
    async with neighbour_of(house) as neighbour:
        await limit(house, TenantLimits(sessions=3), services=2)
        for each in (house, neighbour, house):
            await each.client()

        async def is_full(each: House) -> bool:
            client = await each.client(log_in=False)
            reply = await client.log_in()
            await client.vanish()
            return reply.startswith("421 4.7.0")

        await eventually(lambda: is_full(neighbour))
        await eventually(lambda: is_full(house))


async def test_the_rate_over_the_fleet(house: House, limit: Limit) -> None:
    async with neighbour_of(house) as neighbour:
        await limit(house, TenantLimits(messages_per_minute=6), services=2)
        clients = [await house.client(), await neighbour.client()]
        replies = [await offered(client) for _ in range(5) for client in clients]
        assert sum(reply.startswith("250") for reply in replies) == 6
        assert all(reply.startswith(OVER_RATE) for reply in replies[6:])


async def test_without_valkey_each_process_limits_by_itself(house: House, valkey: ValkeyServer, limit: Limit) -> None:
    """And a 250 waits for it no longer than it may."""
    await limit(house, TenantLimits(messages_per_minute=5))
    client = await house.client()
    await client.submit()
    valkey.pause()
    try:
        began = time.monotonic()
        for _ in range(4):
            assert (await offered(client)).startswith("250")
        took = time.monotonic() - began
    finally:
        valkey.resume()
    assert took < house.settings.tenant_limit_timeout_seconds + 1
    assert (await offered(client)).startswith(OVER_RATE)

    await limit(house, TenantLimits(messages_per_minute=1000))
    await asyncio.to_thread(valkey.kill)
    sent = [await client.submit() for _ in range(20)]
    await asyncio.to_thread(valkey.start)
    assert set(sent) <= set(await house.stored())


async def test_one_floods_and_the_other_is_not_behind_it(make_house: MakeHouse, password_hash: str) -> None:
    """A batch of three, and forty messages that wait: the other tenant's is in the next batch or before."""
    house = await make_house(ingress_batch_messages=3, ingress_committers=1)
    await house.start()
    other = await house.store.create_tenant("other")
    await house.store.create_credential(other.id, OTHER, password_hash)
    floods = [await house.client() for _ in range(40)]
    quiet = await client_of(house, OTHER)
    for client in [*floods, quiet]:
        await client.begin()
    await house.sql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END$$"
    )
    await house.sql("CREATE TRIGGER slow AFTER INSERT ON envelopes FOR EACH STATEMENT EXECUTE FUNCTION slow()")
    for client in floods:
        client.send(stuffed(b"flood\r\n"))
    await eventually(lambda: has_waiting(house, 30))
    quiet.send(stuffed(b"quiet\r\n"))
    mine = queued_id(await quiet.reply())
    answered: list[UUID] = [queued_id(await client.reply()) for client in floods]
    at = await order_of_commits(house)
    assert sum(at[flood] > at[mine] for flood in answered) >= 20


async def has_waiting(house: House, count: int) -> bool:
    return any([await house.has_counted("envelopes_queued", n) for n in range(count, 41)])


async def order_of_commits(house: House) -> dict[UUID, int]:
    """Place of each envelope's transaction among all: their numbers grow with each writer that begins."""
    return {row["id"]: int(row["xmin"]) for row in await house.sql("SELECT id, xmin::text FROM envelopes")}
