"""Changes of the schema beside those who read and write: nobody waits for them long, and they say who is in the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from store_suite import SWEEP_AFTER, core_envelope

from smtp_proxy.errors import SchemaBusy, SchemaMismatch
from smtp_proxy.store import Store, migrate, partitions
from smtp_proxy.store.locks import Locks
from smtp_proxy.store.pool import open_connection

if TYPE_CHECKING:
    from fix_postgres import PostgresServer

    from smtp_proxy.config import Settings
    from smtp_proxy.store.pool import Connection

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

TRY_SECONDS = 0.3
# What a try and a busy machine may make somebody wait; those who block block for far longer.
WAIT_MAX_SECONDS = 1.5
READS_SECONDS = 4.0


@asynccontextmanager
async def reading(settings: Settings, table: str) -> AsyncIterator[Connection]:
    """A long transaction that has read of that table: it keeps its lock, and its snapshot."""
    reader = await open_connection(settings, "long report")
    try:
        await reader.execute(f"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 AS long_report FROM {table}")
        yield reader
    finally:
        await reader.close()


@asynccontextmanager
async def timing(settings: Settings, statement: str) -> AsyncIterator[Callable[[], float]]:
    """Somebody who sends a statement over and over; how long the slowest took, seconds."""
    longest, done = 0.0, asyncio.Event()

    async def run() -> None:
        nonlocal longest
        own = await open_connection(settings, "everyday")
        while not done.is_set():
            began = time.monotonic()
            await own.execute(statement)
            longest = max(longest, time.monotonic() - began)
            await asyncio.sleep(0.01)
        await own.close()

    task = asyncio.create_task(run())
    try:
        yield lambda: longest
    finally:
        done.set()
        await task


@pytest.fixture
async def empty(postgres: PostgresServer) -> Settings:
    return postgres.settings(
        await postgres.new_database(migrated=False), migrate_lock_seconds=TRY_SECONDS, migrate_patience_seconds=30
    )


async def migrate_up_to(settings: Settings, number: int) -> None:
    connection = await open_connection(settings, "test")
    await migrate.apply_migrations(connection, [m for m in migrate.read_migrations() if m.number <= number])
    await connection.close()


async def ends_after(reader: Connection, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await reader.execute("ROLLBACK")


TABLES = {
    "credentials": (2, "SELECT 1 FROM credentials"),
    "tenants": (5, "SELECT 1 FROM tenants"),
    "envelopes": (1, "SELECT 1 FROM envelopes"),
    "deliveries": (1, "SELECT 1 FROM deliveries"),
}


@pytest.mark.parametrize("table", TABLES)
async def test_a_migration_outlasts_a_long_reader_and_nobody_waits_long(empty: Settings, table: str) -> None:
    """0003-0006 once waited up to 30 s behind a reader of credentials, and every login waited behind them."""
    done, everyday = TABLES[table]
    await migrate_up_to(empty, done)
    async with reading(empty, table) as reader, timing(empty, everyday) as longest:
        began = time.monotonic()
        _, applied = await asyncio.gather(ends_after(reader, READS_SECONDS), Store.migrate(empty))
        assert time.monotonic() - began > READS_SECONDS
        assert longest() < WAIT_MAX_SECONDS
    assert [int(label[:4]) for label in applied] == [m.number for m in migrate.read_migrations()][done:]


async def test_a_reader_that_does_not_end_is_named_and_nothing_is_half_applied(empty: Settings) -> None:
    await migrate_up_to(empty, 2)
    hasty = empty.model_copy(update={"migrate_patience_seconds": 2.0})
    async with reading(empty, "credentials") as reader:
        with pytest.raises(SchemaBusy) as caught:
            await Store.migrate(hasty)
        message = str(caught.value)
        assert message.startswith("0003_pre_senders: the locks for it could not be had in 2 s")
        assert f"pid {reader.get_server_pid()} (smtp-proxy long report, client backend, idle in transaction" in message
        assert "SELECT 1 AS long_report FROM credentials" in message
        columns = await reader.fetch("SELECT 1 FROM pg_attribute WHERE attname = 'allowed_senders'")
        numbers = await reader.fetch("SELECT number FROM schema_migrations ORDER BY number")
        assert (columns, [row["number"] for row in numbers]) == ([], [1, 2])
    assert (await Store.migrate(hasty))[0] == "0003_pre_senders"


async def test_an_autovacuum_gives_way_to_two_locks(empty: Settings, postgres: PostgresServer) -> None:
    """Postgres ends it for who has waited for a second; 0002 once never waited so long for its second table."""
    await migrate_up_to(empty, 1)
    await postgres.sql(
        "ALTER TABLE deliveries_default SET (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1, "
        "autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0)",
        database=empty.db_name,
    )
    await postgres.sql(
        "INSERT INTO deliveries SELECT gen_random_uuid(), 0, repeat('x', 500), 0, 0, now(), now() "
        "FROM generate_series(1, 20000)",
        database=empty.db_name,
    )
    await postgres.sql("DELETE FROM deliveries", database=empty.db_name)
    await postgres.sql("ALTER SYSTEM SET autovacuum_naptime = '1s'")
    try:
        await postgres.sql("SELECT pg_reload_conf()")
        async with asyncio.timeout(60):
            while not await vacuums(postgres, empty):
                await asyncio.sleep(0.05)
        patient = empty.model_copy(update={"migrate_lock_seconds": 2.0, "migrate_patience_seconds": 15.0})
        assert "0002_pre_dsn" in await Store.migrate(patient)
    finally:
        await postgres.sql("ALTER SYSTEM RESET autovacuum_naptime")
        await postgres.sql("SELECT pg_reload_conf()")


async def vacuums(postgres: PostgresServer, settings: Settings) -> bool:
    rows = await postgres.sql(
        "SELECT 1 FROM pg_stat_progress_vacuum WHERE relid = 'deliveries_default'::regclass", database=settings.db_name
    )
    return bool(rows)


async def test_an_index_is_built_while_mail_comes_in(empty: Settings) -> None:
    """It waits for whoever has an old snapshot; nobody waits for it."""
    await migrate_up_to(empty, 21)
    store = await Store.connect(empty, check_schema=False)
    await store.ensure_partitions(datetime.now(UTC), 2)
    try:
        async with reading(empty, "tenants") as reader:
            building = asyncio.create_task(Store.migrate(empty))
            slowest = 0.0
            for _ in range(20):
                began = time.monotonic()
                await store.accept([core_envelope()], sweep_after_seconds=SWEEP_AFTER)
                slowest = max(slowest, time.monotonic() - began)
                await asyncio.sleep(0.1)
            assert slowest < WAIT_MAX_SECONDS
            assert not building.done()
            await reader.execute("ROLLBACK")
            assert await building == [m.label for m in migrate.read_migrations() if m.number > 21]
        await store.ensure_partitions(datetime(2040, 1, 1, tzinfo=UTC), 0)
        await assert_indexed(empty, "deliveries_by_lane")
    finally:
        await store.close()


async def test_an_index_that_was_given_up_is_finished_later(empty: Settings) -> None:
    await migrate_up_to(empty, 8)
    await with_partitions(empty)
    hasty = empty.model_copy(update={"migrate_patience_seconds": 1.0})
    async with reading(empty, "tenants") as reader:
        with pytest.raises(SchemaBusy, match=f"index deliveries_held of .*pid {reader.get_server_pid()} "):
            await Store.migrate(hasty)
        rows = await reader.fetch("SELECT number FROM schema_migrations WHERE number = 9")
        assert rows == []
    connection = await open_connection(empty, "test")
    leftovers = "SELECT 1 FROM pg_index WHERE NOT indisvalid AND indrelid <> 'deliveries'::regclass"
    assert await connection.fetch(leftovers) == [], "kept up to date, and read by nobody"
    await connection.close()
    assert await Store.migrate(hasty) == [m.label for m in migrate.read_migrations() if m.number >= 9]
    await assert_indexed(empty)


async def with_partitions(settings: Settings) -> None:
    connection = await open_connection(settings, "test")
    locks = Locks(connection, try_seconds=2.0, total_seconds=10.0)
    with pytest.MonkeyPatch.context() as patch:
        for table in ("content_parts", "webhook_events"):  # of later releases
            patch.delitem(partitions.TABLES, table)
        await partitions.ensure_partitions(connection, datetime.now(UTC), 2, locks)
    await connection.close()


async def assert_indexed(settings: Settings, index: str = "deliveries_held") -> None:
    """All partitions of deliveries have it."""
    connection = await open_connection(settings, "test")
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = $1::text::regclass"
    assert await connection.fetchval(valid, index)
    tables, indexes = [
        await connection.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = $1::text::regclass", parent)
        for parent in ("deliveries", index)
    ]
    assert tables == indexes > 3
    await connection.close()


async def test_partitions_are_made_in_short_tries(store: Store, db_settings: Settings) -> None:
    """The worker makes them: each try keeps claims waiting, so it is one, and what is missing comes later."""
    far = datetime(2040, 1, 1, tzinfo=UTC)
    hasty = await Store.connect(db_settings.model_copy(update={"migrate_lock_seconds": TRY_SECONDS}))
    try:
        async with (
            reading(db_settings, "deliveries_default"),
            timing(db_settings, "SELECT 1 FROM deliveries") as longest,
        ):
            with pytest.raises(SchemaBusy, match="partition deliveries_p20400101"):
                await hasty.ensure_partitions(far, 0)
            assert longest() < WAIT_MAX_SECONDS
        late = [f"{table}_p20400101" for table in partitions.TABLES if table != "envelopes"]
        assert await hasty.ensure_partitions(far, 0) == late
    finally:
        await hasty.close()


async def test_earlier_words_of_a_migration_count_as_applied(empty: Settings, postgres: PostgresServer) -> None:
    await Store.migrate(empty)
    rows = await postgres.sql("SELECT number, checksum FROM schema_migrations", database=empty.db_name)
    kept = {row["number"]: row["checksum"] for row in rows}
    assert migrate.EARLIER_CHECKSUMS.items() <= kept.items(), "what the release before would look for"
    current = {m.number: m.checksum for m in migrate.read_migrations()}
    for number, checksum in current.items():
        await postgres.sql(
            "UPDATE schema_migrations SET checksum = $2 WHERE number = $1", number, checksum, database=empty.db_name
        )
    assert await Store.migrate(empty) == []
    await postgres.sql("UPDATE schema_migrations SET checksum = 'x' WHERE number = 2", database=empty.db_name)
    with pytest.raises(SchemaMismatch, match="0002_pre_dsn was changed"):
        await Store.migrate(empty)
