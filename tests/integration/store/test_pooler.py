"""The store through PgBouncer in transaction mode: the common suite, and what a pooler makes hard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from fix_pgbouncer import SERVER_CONNECTIONS, PgBouncer, pgbouncer
from store_suite import LEASE, SWEEP_AFTER, Stores, StoreSuite, core_envelope, ids_of

from smtp_proxy.errors import AlreadyExists, NotFound, StoreError, StoreMisconfigured, StoreUnavailable
from smtp_proxy.store import Store
from smtp_proxy.store.pool import open_connection, open_session

if TYPE_CHECKING:
    from fix_postgres import PostgresServer

    from smtp_proxy.config import Settings

__all__ = ["pgbouncer"]

pytestmark = pytest.mark.integration


@pytest.fixture
async def pooled(pgbouncer: PgBouncer, postgres: PostgresServer) -> Settings:
    """Settings for a migrated database of this test's own, through the pooler."""
    return pgbouncer.settings(await postgres.new_database())


@pytest.fixture
async def store(pooled: Settings) -> AsyncIterator[Store]:
    opened = await Store.connect(pooled, purpose="pooled")
    yield opened
    await opened.close()


@pytest.fixture
def stores(store: Store, postgres: PostgresServer, pooled: Settings) -> Stores:
    async def let_pass(seconds: float) -> None:
        await postgres.let_pass(seconds, database=pooled.db_name)

    return Stores(store, let_pass)


class TestThroughPgBouncer(StoreSuite):
    pass


async def test_many_share_few_connections(store: Store, postgres: PostgresServer, pooled: Settings) -> None:
    """What is prepared by one message and run by the next must meet the same connection; COPYs must not mix."""
    others = [await Store.connect(pooled, purpose=f"pooled {n}") for n in range(4)]
    batches = [[core_envelope(body=bytes([n % 256]) * 5000) for _ in range(7)] for n in range(100)]

    async def take_and_claim(n: int) -> int:
        own = (store, *others)[n % 5]
        await own.accept(batches[n], sweep_after_seconds=SWEEP_AFTER)
        jobs = await own.claim(ids_of(batches[n]), uuid4(), LEASE)
        assert {job.envelope.body for job in jobs} == {batches[n][0][5]}
        return len(jobs)

    assert sum(await asyncio.gather(*map(take_and_claim, range(100)))) == 700
    (row,) = await postgres.sql(
        "SELECT count(*) AS backends FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
        pooled.db_name,
    )
    assert row["backends"] <= SERVER_CONNECTIONS
    for other in others:
        await other.close()


async def test_a_batch_that_is_refused_leaves_no_trace(store: Store) -> None:
    """What is still on its way when the server refuses has no place in anybody else's transaction."""
    there = core_envelope()
    await store.accept([there], sweep_after_seconds=SWEEP_AFTER)
    large = [core_envelope(body=b"x" * 4_000_000) for _ in range(3)]
    for n in range(10):
        with pytest.raises(AlreadyExists):
            await store.accept([there, *large], sweep_after_seconds=SWEEP_AFTER)
        with pytest.raises(StoreError):
            await store.accept([core_envelope(reverse_path="a\0b@x.example"), *large], sweep_after_seconds=SWEEP_AFTER)
        await asyncio.gather(*(store.accept([core_envelope()], sweep_after_seconds=SWEEP_AFTER) for _ in range(5)))
        assert await store.depth() == 1 + 5 * (n + 1)
    await store.probe_commit()


@pytest.mark.parametrize("doing", ["accept", "probe"])
async def test_what_was_deferred_is_not_stored_afterwards(
    store: Store, postgres: PostgresServer, pooled: Settings, doing: str
) -> None:
    """The client has heard 451 and comes again; so the server, with the whole batch in hand, must give up before us."""
    hasty = await Store.connect(pooled.model_copy(update={"db_timeout_seconds": 1.0}))
    async with AsyncExitStack() as stack:
        connection = await open_session(pooled, "in the way")
        stack.push_async_callback(connection.close)
        await connection.execute("BEGIN; LOCK TABLE envelopes IN ACCESS EXCLUSIVE MODE")
        storing = hasty.accept([core_envelope()], sweep_after_seconds=SWEEP_AFTER)
        with pytest.raises(StoreUnavailable) as caught:
            await (storing if doing == "accept" else hasty.probe_commit())
        storing.close()
        assert caught.value.sqlstate == "57014", "canceled by the server's own time-out"
        await connection.execute("ROLLBACK")
    await hasty.accept([core_envelope()], sweep_after_seconds=SWEEP_AFTER)
    assert await store.depth() == 1
    await hasty.close()


async def test_settings_hold_for_a_transaction_and_are_not_left_behind(store: Store, pooled: Settings) -> None:
    names = ("statement_timeout", "plan_cache_mode", "enable_seqscan", "jit")
    async with store._connection("looking") as connection:
        inside = [await connection.fetchval(f"SHOW {name}") for name in names]
    assert inside == ["4500ms", "force_generic_plan", "off", "off"]
    stranger = await open_connection(pooled, "stranger")
    for _ in range(SERVER_CONNECTIONS * 3):
        async with stranger.transaction():
            assert await stranger.fetchval("SHOW plan_cache_mode") == "auto"
    await stranger.close()


async def test_a_failure_of_ours_leaves_no_transaction_open(store: Store) -> None:
    for _ in range(SERVER_CONNECTIONS * 3):
        with pytest.raises(NotFound):
            await store.message(uuid4())
        with pytest.raises(StoreError, match="invalid input"):
            async with store._connection("being wrong") as connection:
                await connection.fetch("SELECT $1::int", "not a number")
    await asyncio.gather(*(store.ping() for _ in range(20)))


async def test_who_loses_patience_leaves_nothing_open(store: Store, postgres: PostgresServer, pooled: Settings) -> None:
    for _ in range(SERVER_CONNECTIONS * 2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), store._connection("waiting") as connection:
                await connection.execute("SELECT pg_sleep(60)")
    large = [core_envelope(body=b"x" * 8_000_000) for _ in range(3)]
    for _ in range(SERVER_CONNECTIONS * 2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await store.accept(large, sweep_after_seconds=SWEEP_AFTER)
    await store.ping()
    await store.accept([core_envelope()], sweep_after_seconds=SWEEP_AFTER)
    assert await store.depth() == 1
    rows = await postgres.sql(
        "SELECT query FROM pg_stat_activity WHERE datname = $1 AND state LIKE 'idle in transaction%'", pooled.db_name
    )
    assert rows == []


async def test_locks_and_notifications_go_past_it(store: Store, postgres: PostgresServer, pooled: Settings) -> None:
    """A lock taken through it would be on a connection that is anybody's."""
    heard = asyncio.Event()
    listening = asyncio.create_task(store.listen_credentials(heard.set))
    async with store.leader("sweeper") as one, store.leader("sweeper") as other:
        assert (await one.try_acquire(), await other.try_acquire()) == (True, False)
        async with asyncio.timeout(10):
            await heard.wait()
        heard.clear()
        await store.create_credential((await store.create_tenant("acme")).id, "app", "hash")
        async with asyncio.timeout(10):
            await heard.wait()
    listening.cancel()
    rows = await postgres.sql(
        "SELECT application_name FROM pg_stat_activity WHERE datname = $1 AND client_port IS NOT NULL", pooled.db_name
    )
    assert rows


async def test_it_migrates_past_it(pgbouncer: PgBouncer, postgres: PostgresServer) -> None:
    settings = pgbouncer.settings(await postgres.new_database(migrated=False))
    assert await Store.migrate(settings)
    store = await Store.connect(settings)
    await store.accept([core_envelope()], sweep_after_seconds=SWEEP_AFTER)
    await store.close()


@pytest.mark.parametrize("ignored", ["", "everything"])
async def test_a_pooler_that_is_not_named_is_refused(postgres: PostgresServer, tmp_path: Path, ignored: str) -> None:
    """Left to itself it fails later, now and then, with words that explain nothing."""
    names = "statement_timeout,idle_in_transaction_session_timeout,jit,plan_cache_mode,enable_seqscan,"
    names += "tcp_keepalives_idle,tcp_keepalives_interval,tcp_keepalives_count,extra_float_digits"
    bouncer = PgBouncer(tmp_path, postgres, ignored=names if ignored else "")
    bouncer.start()
    try:
        settings = postgres.settings(await postgres.new_database(), db_port=bouncer.port)
        with pytest.raises(StoreMisconfigured, match="set DB_POOLER=transaction, and DB_DIRECT_HOST") as caught:
            await Store.connect(settings)
        assert caught.value.fault == "operator"
    finally:
        bouncer.stop()


async def test_a_pooler_without_a_server(pgbouncer: PgBouncer) -> None:
    with pytest.raises(StoreUnavailable):
        await Store.connect(pgbouncer.settings("no_such_database"))
