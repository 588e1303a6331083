"""Services log in as roles of their own, and not as the master user: least privilege in Postgres (decision 0043)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from store_suite import SWEEP_AFTER, Stores, StoreSuite, core_envelope, ids_of

from smtp_proxy.doctor import postgres as doctor
from smtp_proxy.errors import SchemaBusy, StoreMisconfigured
from smtp_proxy.store import Store, partitions
from smtp_proxy.store.facts import read_facts
from smtp_proxy.store.pool import open_connection

if TYPE_CHECKING:
    from fix_postgres import PostgresServer

    from smtp_proxy.config import Settings

pytestmark = pytest.mark.integration
OWNER, LOGIN = "smtp_proxy_owner", "smtp_proxy_app"
HANDED_OVER = "smtp_proxy_handed_over"
OWNERS = (
    "SELECT relname AS name, relowner::regrole::text AS owner FROM pg_class"
    " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S')"
    " UNION ALL SELECT proname, proowner::regrole::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
)


@dataclass(frozen=True)
class Database:
    """One database of a master who may do what RDS's may: make roles and databases, and no more."""

    server: PostgresServer
    master: Settings  # of the release before: the master alone, who owns what it makes
    migration: Settings
    services: Settings

    async def owners(self) -> set[str]:
        return {row["owner"] for row in await self.server.sql(OWNERS, database=self.master.db_name)}

    async def as_login(self) -> asyncpg.Connection[asyncpg.Record]:
        return await open_connection(self.services, "test")


async def of_the_master(server: PostgresServer, name: str) -> Database:
    """Roles are the server's, of all its databases: made by the first test, and found by the others."""
    if not await server.sql("SELECT FROM pg_roles WHERE rolname = 'smtp_admin'"):
        await server.sql("CREATE ROLE smtp_admin LOGIN CREATEROLE CREATEDB")
    await server.sql(f"ALTER DATABASE {name} OWNER TO smtp_admin")
    roles: dict[str, Any] = {"migrate_owner": OWNER, "migrate_login": LOGIN}
    return Database(
        server,
        master=server.settings(name, db_user="smtp_admin"),
        migration=server.settings(name, db_user="smtp_admin", **roles),
        services=server.settings(name, db_user=LOGIN),
    )


@pytest.fixture
async def database(postgres: PostgresServer) -> Database:
    """Empty."""
    return await of_the_master(postgres, await postgres.new_database(migrated=False))


@pytest.fixture
async def handed_over(postgres: PostgresServer) -> Database:
    """As the migration leaves it: run for the first test, and copied, rights and all, for the others."""
    if not await postgres.sql("SELECT FROM pg_database WHERE datname = $1", HANDED_OVER):
        made = await of_the_master(postgres, await postgres.new_database(migrated=False))
        await Store.migrate(made.migration)
        # Whole, or not there.
        await postgres.sql(f"ALTER DATABASE {made.master.db_name} RENAME TO {HANDED_OVER}")
    return await of_the_master(postgres, await postgres.new_database(template=HANDED_OVER))


@pytest.fixture
async def store(handed_over: Database) -> AsyncIterator[Store]:
    """Of a service that logs in as a role of its own."""
    opened = await Store.connect(handed_over.services, purpose="test")
    yield opened
    await opened.close()


@pytest.fixture
def stores(store: Store, handed_over: Database) -> Stores:
    async def let_pass(seconds: float) -> None:
        await handed_over.server.let_pass(seconds, database=handed_over.master.db_name)

    return Stores(store, let_pass)


class TestAsARoleOfItsOwn(StoreSuite):
    """All that services do with the store, they may."""


async def test_the_roles_are_made_twice_without_harm_and_own_all(database: Database) -> None:
    assert "0001_pre_spine" in await Store.migrate(database.migration)
    assert await Store.migrate(database.migration) == []
    assert await database.owners() == {OWNER}
    rows = await database.server.sql(
        "SELECT rolname, rolcanlogin, rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
        " FROM pg_roles WHERE rolname = ANY ($1) ORDER BY rolname",
        [OWNER, LOGIN],
    )
    assert [tuple(row) for row in rows] == [(LOGIN, True, False), (OWNER, False, False)]


async def test_many_migrate_at_once(database: Database) -> None:
    """As when a task is started twice."""
    applied = await asyncio.gather(*(Store.migrate(database.migration) for _ in range(4)))
    assert sum(map(len, applied)) == len(max(applied, key=len)) > 0
    assert await database.owners() == {OWNER}


@pytest.mark.parametrize(
    "forbidden",
    [
        "CREATE ROLE another",
        "CREATE DATABASE another",
        "ALTER ROLE smtp_proxy_app CREATEROLE",
        "ALTER SYSTEM SET work_mem = '1GB'",
        "SET ROLE smtp_admin",
        "GRANT smtp_proxy_owner TO smtp_admin",
        "CREATE SCHEMA another",
        "DROP TABLE of_the_master",
        "COPY (SELECT 1) TO PROGRAM 'true'",
    ],
)
async def test_the_login_may_do_nothing_beyond_the_schema(database: Database, forbidden: str) -> None:
    await Store.migrate(database.migration)
    master = await open_connection(database.master, "test")
    await master.execute("CREATE TABLE of_the_master (n int)")
    await master.close()
    login = await database.as_login()
    try:
        with pytest.raises(asyncpg.PostgresError) as refused:
            await login.execute(forbidden)
    finally:
        await login.close()
    assert refused.value.sqlstate == "42501", refused.value


async def test_partitions_are_made_and_dropped_by_the_login_and_are_the_owners(
    store: Store, handed_over: Database
) -> None:
    long_ago = datetime(2026, 1, 10, tzinfo=UTC)
    made = await store.ensure_partitions(long_ago, 0)
    assert {partitions.partition_name(table, long_ago) for table in partitions.TABLES} == set(made)
    assert await handed_over.owners() == {OWNER}
    assert await store.drop_days(datetime(2026, 1, 12, tzinfo=UTC))
    names = {row["name"] for row in await handed_over.server.sql(OWNERS, database=handed_over.master.db_name)}
    assert not names & set(made)


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Store]:
    store = await Store.connect(settings, purpose="test")
    yield store
    await store.close()


@pytest.fixture
async def stack() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as made:
        yield made


async def test_what_the_master_had_filled_is_taken_over_while_it_writes(
    database: Database, stack: contextlib.AsyncExitStack
) -> None:
    """The release before logs in as the master, on and on: nothing it does is refused, before, meanwhile or after."""
    await Store.migrate(database.master)
    assert await database.owners() == {"smtp_admin"}
    before = await stack.enter_async_context(opened(database.master))
    written: list[Any] = []
    over = asyncio.Event()

    async def write() -> None:
        while not over.is_set():
            envelope = core_envelope()
            await before.accept([envelope], sweep_after_seconds=SWEEP_AFTER)
            written.extend(ids_of([envelope]))

    writing = asyncio.create_task(write())
    while len(written) < 5:
        await asyncio.sleep(0.01)
    at_first = len(written)
    await Store.migrate(database.migration)
    at_last = len(written)
    assert await database.owners() == {OWNER}
    # New tasks beside old ones, on the same mail; and an old one makes tomorrow's partitions, and drops others.
    after = await stack.enter_async_context(opened(database.services))
    await after.accept([core_envelope()], sweep_after_seconds=SWEEP_AFTER)
    while len(written) < at_last + 5:
        await asyncio.sleep(0.01)
    over.set()
    await writing
    assert at_first < at_last
    assert await before.ensure_partitions(datetime(2041, 1, 1, tzinfo=UTC), 0)
    assert await database.owners() == {OWNER, "smtp_admin"}
    (facts,) = [await read_facts(database.services)]
    assert len(facts.tables_of_others) == len(partitions.TABLES)
    assert any("are another role's" in each.what for each in await doctor.examine(database.services, None))
    # The second half of a deployment: what was made meanwhile.
    await Store.migrate(database.migration)
    assert await database.owners() == {OWNER}
    assert (await read_facts(database.services)).tables_of_others == []
    assert (await after.message(written[0])).summary.id == written[0]


async def test_a_table_that_is_held_is_named_and_the_next_run_goes_on(database: Database) -> None:
    await Store.migrate(database.master)
    impatient = database.migration.model_copy(update={"migrate_lock_seconds": 0.1, "migrate_patience_seconds": 0.3})
    async with database.server.locked("tenants", database=database.master.db_name):
        with pytest.raises(SchemaBusy, match="ALTER TABLE tenants OWNER TO smtp_proxy_owner"):
            await Store.migrate(impatient)
    await Store.migrate(impatient)
    assert await database.owners() == {OWNER}


@contextlib.asynccontextmanager
async def rds(server: PostgresServer, rule: str) -> AsyncIterator[None]:
    """With RDS's role, its grant, and a rule for members, direct and indirect ones, as its pg_hba.conf has it."""
    # On RDS the master may grant it. Here nobody may but the superuser, and who has it to grant is a member.
    await server.sql("CREATE ROLE rds_iam")
    await server.sql("ALTER ROLE smtp_admin SUPERUSER")
    hba = server.data / "pg_hba.conf"
    as_it_was = hba.read_text()
    hba.write_text(f"host all +rds_iam 127.0.0.1/32 {rule}\n" + as_it_was)
    try:
        await server.sql("SELECT pg_reload_conf()")
        await asyncio.sleep(0.3)
        yield
    finally:
        hba.write_text(as_it_was)
        await server.sql("SELECT pg_reload_conf()")
        await asyncio.sleep(0.3)
        await server.sql("ALTER ROLE smtp_admin NOSUPERUSER")
        await server.sql("DROP ROLE rds_iam")


@pytest.fixture
async def fresh(database: Database) -> AsyncIterator[Database]:
    """With roles that this test alone has made."""

    async def without() -> None:
        await database.server.sql(f"DROP DATABASE IF EXISTS {HANDED_OVER} WITH (FORCE)")
        for name in await database.server.sql("SELECT datname FROM pg_database WHERE datname LIKE 'test_%'"):
            with contextlib.suppress(asyncpg.UndefinedObjectError):
                await database.server.sql(f"DROP OWNED BY {OWNER}", database=name["datname"])
        for role in (LOGIN, OWNER):
            await database.server.sql(f"DROP ROLE IF EXISTS {role}")

    await without()
    yield database
    await without()


async def test_the_master_still_logs_in_beside_who_logs_in_by_token(fresh: Database) -> None:
    """Made by a superuser, no role has its maker as a member; what the master is a member of leads to no rds_iam."""
    server = fresh.server
    async with rds(server, "reject"):
        await Store.migrate(fresh.migration)
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await fresh.as_login()
        assert await server.sql("SELECT FROM pg_auth_members WHERE member = 'smtp_admin'::regrole")
        assert await Store.migrate(fresh.migration) == []
        assert await Store.migrate(fresh.master) == []


async def test_where_the_master_would_be_locked_out_the_token_is_taken_back(fresh: Database) -> None:
    """Since Postgres 16 who makes a role is a member of it, and Postgres itself counts that for `+rds_iam`."""
    server = fresh.server
    await Store.migrate(fresh.migration)  # the master makes the roles
    async with rds(server, "reject"):
        with pytest.raises(
            StoreMisconfigured, match=r"as well; so the grant was taken back.* says Postgres \d+\.\d+ and"
        ):
            await Store.migrate(fresh.migration)
        assert not await server.sql("SELECT FROM pg_auth_members WHERE roleid = 'rds_iam'::regrole")
        await (await fresh.as_login()).close()


IAM_MEMBERS = (
    "SELECT FROM pg_auth_members JOIN pg_roles ON pg_roles.oid = member"
    " WHERE roleid = 'rds_iam'::regrole AND rolname = $1"
)


async def migrate_killed_in_the_trial(database: Database) -> None:
    """The real process, as `kill -9` or a lost machine ends it, while the login is a member of rds_iam for a moment."""
    said = database.migration
    environ = {
        "PATH": os.environ["PATH"],
        "DB_HOST": said.db_host,
        "DB_PORT": str(said.db_port),
        "DB_NAME": said.db_name,
        "DB_USER": said.db_user,
        "DB_SSLMODE": "disable",
        "MIGRATE_OWNER": OWNER,
        "MIGRATE_LOGIN": LOGIN,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "smtp_proxy", "migrate", env=environ, stdout=-3, stderr=-3
    )
    try:
        async with asyncio.timeout(30):
            while not await members(database):
                await asyncio.sleep(0.02)
    finally:
        process.kill()
    assert await process.wait() == -9, "it had not ended by itself"


async def members(database: Database) -> bool:
    return bool(await database.server.sql(IAM_MEMBERS, LOGIN))


async def test_a_migration_that_is_killed_in_its_trial_locks_nobody_out(fresh: Database) -> None:
    """Nobody could log in to take it back, so the server does, whose client is gone; the next run tells why."""
    await Store.migrate(fresh.migration)  # the master makes the roles, and would be locked out
    async with rds(fresh.server, "reject"):
        await migrate_killed_in_the_trial(fresh)
        with pytest.raises(StoreMisconfigured, match="reject"):
            await Store.migrate(fresh.migration)
        async with asyncio.timeout(10):
            while await members(fresh):
                await asyncio.sleep(0.05)
        assert await Store.migrate(fresh.master) == []
        with pytest.raises(StoreMisconfigured, match="so the grant was taken back"):
            await Store.migrate(fresh.migration)
        assert not await members(fresh)


async def test_the_next_migration_finishes_what_was_killed_in_its_trial(fresh: Database) -> None:
    async with rds(fresh.server, "reject"):
        await migrate_killed_in_the_trial(fresh)
        assert await Store.migrate(fresh.migration)  # which waits until the server is through with the first
        assert await members(fresh)
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await fresh.as_login()


async def test_a_migration_that_is_told_to_stop_in_its_trial_takes_the_token_back(fresh: Database) -> None:
    async with rds(fresh.server, "reject"):
        running = asyncio.create_task(Store.migrate(fresh.migration))
        async with asyncio.timeout(30):
            while not await members(fresh):
                await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not await members(fresh)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("CREATE ROLE mighty LOGIN CREATEDB", "the role mighty is there and has CREATEDB: take that from it"),
        ("CREATE ROLE mighty LOGIN IN ROLE smtp_admin", "has CREATEDB, CREATEROLE"),
        ("CREATE ROLE mighty", "the role mighty is there and may not log in: ALTER ROLE mighty LOGIN, or name another"),
    ],
)
async def test_a_role_that_may_more_is_not_taken(database: Database, made: str, said: str) -> None:
    await database.server.sql(made)
    try:
        with pytest.raises(StoreMisconfigured, match=said):
            await Store.migrate(database.migration.model_copy(update={"migrate_login": "mighty"}))
    finally:
        await database.server.sql("DROP ROLE mighty")


async def test_who_may_make_no_roles_is_told(database: Database) -> None:
    await Store.migrate(database.migration)
    with pytest.raises(StoreMisconfigured, match="SQLSTATE 42501"):
        await Store.migrate(database.migration.model_copy(update={"db_user": LOGIN, "migrate_login": "one_more"}))
