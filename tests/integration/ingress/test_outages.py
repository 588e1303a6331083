"""Postgres or Valkey are away: nothing is acknowledged that is not stored, and the same service recovers by itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import pytest
from fix_ingress import USERNAME, Client, House, MakeHouse, eventually, queued_id, stuffed
from fix_postgres import PostgresServer
from fix_valkey import ValkeyServer, free_port
from senders import Refused, Senders
from stopwatch import Stopwatch

from smtp_proxy.ingress import pressure

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


async def is_refused(client: Client, codes: tuple[str, ...]) -> None:
    with pytest.raises(Refused) as raised:
        await client.submit()
    assert str(raised.value).startswith(codes)


async def gets_in(house: House) -> list[UUID]:
    """The id of a message that a new client could send; empty: it could not."""
    with contextlib.suppress(Refused, EOFError):
        return [await (await house.client()).submit()]
    return []


async def again(house: House, seconds: float = 10) -> list[UUID]:
    """Wait until a new client gets in."""
    async with asyncio.timeout(seconds):
        while not (sent := await gets_in(house)):
            await asyncio.sleep(0.01)
    return sent


@contextlib.asynccontextmanager
async def reading_only(postgres: PostgresServer) -> AsyncIterator[None]:
    """The server answers and takes no writes, as one that lost its role or whose operator protects a full disk."""
    await postgres.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    await postgres.sql("SELECT pg_reload_conf()")
    await eventually(lambda: _writes(postgres, "on"))
    try:
        yield
    finally:
        await postgres.sql("ALTER SYSTEM RESET default_transaction_read_only")
        await postgres.sql("SELECT pg_reload_conf()")
        await eventually(lambda: _writes(postgres, "off"))


async def _writes(postgres: PostgresServer, read_only: str) -> bool:
    (row,) = await postgres.sql("SHOW default_transaction_read_only")
    return bool(row[0] == read_only)


@pytest.fixture
def gates(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """`gates()`: what the gate became, in order, as the log has it."""
    caplog.set_level("INFO", pressure.log.name)

    def said() -> list[str]:
        return [str(r.args[0]) for r in caplog.records if vars(r).get("action") == "gate" and isinstance(r.args, tuple)]

    return said


async def all_are_sent_away(house: House, seconds: float) -> None:
    """For so long nobody gets further than the greeting."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        late = await house.connected()
        assert (await late.reply()).startswith("421 4.3.0")
        assert await late.is_closed()
        await asyncio.sleep(0.02)


async def test_postgres_only_reads(house: House, postgres: PostgresServer, gates: Callable[[], list[str]]) -> None:
    """It answers every question and stores nothing: shut once, and shut as long as that lasts."""
    client = await house.client()
    async with reading_only(postgres):
        await is_refused(client, ("451 4.3.0",))
        await all_are_sent_away(house, 2)
        assert (await client.say("MAIL FROM:<a@sender.example>")).startswith("451 4.3.0")
        assert gates() == ["store_down"]
    acknowledged = await again(house, 3)
    acknowledged += [await client.submit()]
    assert await house.stored() == acknowledged
    assert gates() == ["store_down", "open"]


async def test_the_disk_is_full(house: House, gates: Callable[[], list[str]]) -> None:
    client = await house.client()
    await house.fill_disk()
    await is_refused(client, ("451 4.3.0",))
    await all_are_sent_away(house, 2)
    assert gates() == ["store_down"]
    await house.clear_disk()
    assert await again(house, 3) == await house.stored()
    assert gates() == ["store_down", "open"]


async def test_the_disk_is_full_for_all_but_the_probe(house: House, gates: Callable[[], list[str]]) -> None:
    """What the trial fits in, mail does not: the gate opens ever less often, and not ten times a second."""
    await house.fill_disk("NEW.size_bytes > 0")
    until = time.monotonic() + 3
    while time.monotonic() < until:
        assert await gets_in(house) == []
        await asyncio.sleep(0.01)
    assert 2 <= gates().count("open") <= 5
    await house.clear_disk()
    assert await again(house) == await house.stored()
    assert gates()[-1] == "open"


async def test_postgres_dies_and_comes_back(house: House, postgres: PostgresServer) -> None:
    early, waiting = await house.client(), await house.client()
    acknowledged = [await early.submit()]
    await waiting.begin()
    await asyncio.to_thread(postgres.kill)

    await is_refused(early, ("451 4.3.0",))
    waiting.send(stuffed(b"began before\r\n"))
    assert (await waiting.reply()).startswith("451 4.3.0"), "what was begun before is not acknowledged either"
    assert (await early.say("MAIL FROM:<a@sender.example>")).startswith("451 4.3.0"), "known to be in vain"
    late = await house.connected()
    assert (await late.reply()).startswith("421 4.3.0")
    assert await late.is_closed()

    await asyncio.to_thread(postgres.start)
    acknowledged += await again(house, 3)
    acknowledged += [await early.submit(), await waiting.submit()]
    assert await house.stored() == acknowledged
    await eventually(lambda: house.is_queued(*acknowledged))


async def test_a_postgres_that_is_slow_at_the_start_is_waited_for(
    make_house: MakeHouse, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It answers the connection and not the first question; the service stays, and takes mail when it does."""
    house = await make_house(smtp_plaintext_port=0, smtp_plaintext_username=USERNAME, db_timeout_seconds=0.3)

    async def waits() -> bool:
        return any("waiting for Postgres" in message for message in caplog.messages)

    async with postgres.locked("credentials", database=house.settings.db_name):
        await house.start(wait=False)
        await eventually(waits)
    await house.listening()
    sent = await (await house.client("plaintext")).submit()
    assert await house.stored() == [sent]


async def test_postgres_dies_under_load(make_house: MakeHouse, postgres: PostgresServer) -> None:
    """Kill -9 in the middle of a stream of mail. Every 250 is found in the database, whenever it was spoken."""
    house = await make_house(smtp_plaintext_port=0, smtp_plaintext_username=USERNAME)
    await house.start()
    lives = asyncio.Event()

    def count(acknowledged: int) -> None:
        if acknowledged == 100:
            lives.set()

    senders = Senders(house.addresses["plaintext"][1], total=600, on_acknowledged=count)
    sending = asyncio.create_task(senders.run(40))
    await lives.wait()
    await asyncio.to_thread(postgres.kill)
    killed_at = len(senders.acknowledged)
    await asyncio.to_thread(postgres.start)
    await sending

    assert killed_at < 600
    assert senders.interrupted > 0
    acknowledged = {queued_id(reply) for reply in senders.acknowledged.values()}
    assert len(acknowledged) == 600
    stored = set(await house.stored())
    assert acknowledged <= stored
    # A commit whose answer was lost is the only reason for one more: at most a batch of all connections.
    assert len(stored - acknowledged) <= senders.connections


async def test_postgres_stands_still(house: House, postgres: PostgresServer) -> None:
    """It answers nothing. The client hears 451 after `db_timeout_seconds`, and not much later."""
    client = await house.client()
    postgres.pause()
    try:
        began = time.monotonic()
        await is_refused(client, ("451 4.3.0",))
        took = time.monotonic() - began
    finally:
        postgres.resume()
    assert took < 2 * house.settings.db_timeout_seconds + 2
    acknowledged = await again(house)
    others = set(await house.stored()) - set(acknowledged)
    assert len(others) <= 1, "the one of unknown fate may be there: at least once"


async def test_the_service_starts_before_its_database(make_house: MakeHouse, postgres: PostgresServer) -> None:
    house = await make_house()
    await asyncio.to_thread(postgres.stop)
    await house.start(wait=False)
    await asyncio.sleep(0)
    await asyncio.to_thread(postgres.start)
    await house.listening()
    assert await gets_in(house) == await house.stored() != []


async def test_the_service_can_be_stopped_before_its_database_is_there(
    make_house: MakeHouse, postgres: PostgresServer
) -> None:
    house = await make_house()
    await asyncio.to_thread(postgres.stop)
    await house.start(wait=False)
    await asyncio.sleep(0)
    house.terminate()
    await house.stopped()
    assert house.addresses == {}


async def test_valkey_dies_and_comes_back(house: House, valkey: ValkeyServer) -> None:
    """Mail is taken as if nothing had happened; what the stream missed is the sweeper's."""
    client = await house.client()
    before = await client.submit()
    await eventually(lambda: house.is_queued(before))
    await asyncio.to_thread(valkey.kill)
    meanwhile = [await client.submit() for _ in range(20)] + [await (await house.client()).submit()]
    assert await house.stored() == [before, *meanwhile]
    await asyncio.to_thread(valkey.start)

    async def is_told_again() -> bool:
        return await house.is_queued(await client.submit())

    await eventually(is_told_again)


async def test_valkey_stands_still(house: House, valkey: ValkeyServer) -> None:
    """A 250 does not wait for it, and neither does the next."""
    client = await house.client()
    valkey.pause()
    try:
        with Stopwatch() as all_of_them:
            sent = [await client.submit() for _ in range(20)]
    finally:
        valkey.resume()
    assert all_of_them.seconds < house.settings.redis_timeout_seconds
    assert await house.stored() == sent


async def test_there_never_was_a_valkey(make_house: MakeHouse) -> None:
    house = await make_house(redis_url=f"redis://127.0.0.1:{free_port()}")
    await house.start()
    client = await house.client()
    sent: list[UUID] = [await client.submit() for _ in range(3)]
    assert await house.stored() == sent
    house.terminate()
    await house.stopped()
