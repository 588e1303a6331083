"""Migrations and partitions: once each, together, and noticed when they were changed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from store_suite import core_envelope, ids_of

from smtp_proxy.errors import SchemaMismatch
from smtp_proxy.store import Store, migrate, partitions
from smtp_proxy.store.ids import new_id
from smtp_proxy.store.pool import open_connection
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fix_postgres import PostgresServer

    from smtp_proxy.config import Settings
    from smtp_proxy.store.pool import Connection

pytestmark = pytest.mark.integration

SOURCES = {
    "0001_pre_one.sql": "CREATE TABLE one (n int);",
    "0002_post_two.sql": "CREATE TABLE two (n int);",
    "0003_pre_three.sql": "CREATE TABLE three (n int);",
}


@pytest.fixture
async def empty(postgres: PostgresServer) -> Settings:
    return postgres.settings(await postgres.new_database(migrated=False))


@pytest.fixture
async def connection(empty: Settings) -> AsyncIterator[Connection]:
    opened = await open_connection(empty, "test")
    yield opened
    await opened.close()


async def test_a_service_does_not_start_on_an_empty_database(empty: Settings) -> None:
    with pytest.raises(SchemaMismatch, match=r"lacks 0001_pre_spine.*smtp-proxy migrate"):
        await Store.connect(empty)
    assert "0001_pre_spine" in await Store.migrate(empty)
    store = await Store.connect(empty)
    await store.close()


async def test_a_second_time_does_nothing(empty: Settings) -> None:
    assert await Store.migrate(empty)
    assert await Store.migrate(empty) == []


async def test_many_at_once_apply_each_once(empty: Settings) -> None:
    applied = await asyncio.gather(*(Store.migrate(empty) for _ in range(6)))
    labels = [label for some in applied for label in some]
    assert labels == [m.label for m in migrate.read_migrations()]


async def test_partitions_made_by_many_at_once(store: Store, db_settings: Settings) -> None:
    others = [await Store.connect(db_settings) for _ in range(3)]
    far = datetime(2040, 1, 1, tzinfo=UTC)
    made = await asyncio.gather(*(s.ensure_partitions(far, 4) for s in (store, *others)))
    names = [name for some in made for name in some]
    assert len(names) == len(set(names)) == 5 * len(partitions.TABLES)
    for other in others:
        await other.close()


async def test_pre_and_post(connection: Connection) -> None:
    migrations = migrate.read_migrations(SOURCES)
    assert [m.number for m in await migrate.apply_migrations(connection, migrations, ["pre"])] == [1, 3]
    await migrate.check_schema(connection, migrations)
    assert [m.number for m in await migrate.apply_migrations(connection, migrations)] == [2]


async def test_a_changed_file_is_refused(connection: Connection) -> None:
    migrations = migrate.read_migrations(SOURCES)
    await migrate.apply_migrations(connection, migrations)
    changed = [replace(migrations[0], sql="CREATE TABLE other (n int);"), *migrations[1:]]
    with pytest.raises(SchemaMismatch, match="0001_pre_one was changed"):
        await migrate.check_schema(connection, changed)
    with pytest.raises(SchemaMismatch, match="0001_pre_one was changed"):
        await migrate.apply_migrations(connection, changed)


async def test_an_older_release_runs_beside_a_newer_pre_but_not_a_newer_post(connection: Connection) -> None:
    migrations = migrate.read_migrations(SOURCES)
    await migrate.apply_migrations(connection, migrations, ["pre"])
    await migrate.check_schema(connection, migrations[:1])
    await migrate.apply_migrations(connection, migrations)
    with pytest.raises(SchemaMismatch, match="0002_post_two of a newer release"):
        await migrate.check_schema(connection, migrations[:1])


# What release 1 wrote of a message, but for its id.
PREVIOUS_COPIES = (
    (
        "envelopes",
        ("id", "tenant_id", "credential_id", "reverse_path", "recipient_count", "size_bytes", "body_type", "smtputf8",
         "helo", "client_address", "tls", "received_at"),
        (UUID(int=1), UUID(int=2), "a@b", 1, 1, 0, False, "x", "192.0.2.1", True, datetime(2026, 1, 1, tzinfo=UTC)),
    ),
    ("bodies", ("envelope_id", "content"), (b"x",)),
    (
        "deliveries",
        ("envelope_id", "recipient_number", "recipient", "sweep_at"),
        (0, "c@d", datetime(2026, 1, 1, tzinfo=UTC)),
    ),
)  # fmt: skip


async def test_dsn_is_added_while_the_previous_release_takes_and_claims_mail(empty: Settings) -> None:
    """0002 locks two tables that others lock in either order; nobody is a deadlock's victim."""
    connection = await open_connection(empty, "test")
    migrations = migrate.read_migrations()
    await migrate.apply_migrations(connection, migrations[:1])
    done = asyncio.Event()

    async def accepts() -> int:
        """As the previous release does: the statement names no column of DSN."""
        own, count = await open_connection(empty, "accepts"), 0
        while not done.is_set():
            ids = [new_id_now() for _ in range(1 + count % 60)]
            async with own.transaction():
                for table, columns, row in PREVIOUS_COPIES:
                    await own.copy_records_to_table(table, records=[(i, *row) for i in ids], columns=columns)
            count += 1
        await own.close()
        return count

    async def claims() -> int:
        own, count = await open_connection(empty, "claims"), 0
        statement = (
            QUERIES["claim"]
            .replace(" d.dsn_notify, d.dsn_orcpt, d.lane, d.route,", "")
            .replace(", waits_for = NULL", "")
            .replace(",\n        dsn_ret, dsn_envid, tls_suite", "")
            .partition(", e.dsn_ret")[0]
        )
        sweep = QUERIES["sweep"].replace("CASE lane WHEN 1 THEN 1 ELSE 0 END = $3 AND 0 + state < 2", "state IN (0, 1)")
        sweep = sweep.replace("CASE o.lane WHEN 1 THEN 1 ELSE 0 END = $3 AND o.state + 0 < 2", "o.state IN (0, 1)")
        assert "lane" not in sweep
        while not done.is_set():
            ids = [row["envelope_id"] for row in await own.fetch(sweep, 10, timedelta(0))] or [new_id_now()]
            await own.fetch(statement, ids, min(ids), max(ids), new_id_now(), timedelta(seconds=1))
            count += 1
        await own.close()
        return count

    busy = [asyncio.create_task(work()) for work in (accepts, claims, accepts, claims)]
    await asyncio.sleep(0.5)
    assert next(m.label for m in await migrate.apply_migrations(connection, migrations)) == "0002_pre_dsn"
    await asyncio.sleep(0.2)
    done.set()
    assert all(count > 1 for count in await asyncio.gather(*busy))
    store = await Store.connect(empty)
    await store.accept([core_envelope(dsn=(1, "id", [(0, None)]))], sweep_after_seconds=1)
    await store.close()
    assert await connection.fetchval("SELECT count(*) FROM envelopes WHERE dsn_envid = 'id'") == 1
    await connection.close()


async def test_what_the_previous_release_took_in_is_delivered_whole(empty: Settings) -> None:
    """Its bodies lie in a table of their own; 0008 leaves them there."""
    connection = await open_connection(empty, "test")
    migrations = migrate.read_migrations()
    await migrate.apply_migrations(connection, migrations[:6])
    older = new_id_now()
    for table, columns, row in PREVIOUS_COPIES:
        await connection.copy_records_to_table(table, records=[(older, *row)], columns=columns)
    await migrate.apply_migrations(connection, migrations)
    await connection.close()
    store = await Store.connect(empty)
    newer = core_envelope(body=b"new")
    await store.accept([newer], sweep_after_seconds=1)
    jobs = await store.claim([older, *ids_of([newer])], uuid4(), 30)
    await store.close()
    assert {job.envelope.id: job.envelope.body for job in jobs} == {older: b"x", UUID(bytes=newer[0]): b"new"}


def new_id_now() -> UUID:
    return new_id(datetime.now(UTC))


async def test_a_migration_that_fails_leaves_nothing(connection: Connection) -> None:
    sources = {**SOURCES, "0003_pre_three.sql": "CREATE TABLE three (n int); SELECT 1/0;"}
    with pytest.raises(Exception, match="division by zero"):
        await migrate.apply_migrations(connection, migrate.read_migrations(sources))
    assert await connection.fetchval("SELECT to_regclass('three')") is None
    assert [m.number for m in await migrate.apply_migrations(connection, migrate.read_migrations(SOURCES))] == [3]
