"""Postgres goes away in every way it can; the store says so in its own words and recovers by itself."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from fix_postgres import PostgresServer, free_port
from stopwatch import Stopwatch
from store_suite import LEASE, SWEEP_AFTER, core_envelope, ids_of

from smtp_proxy.config import Settings
from smtp_proxy.errors import StoreMisconfigured, StoreUnavailable
from smtp_proxy.store import Store
from smtp_proxy.store import listen as listening_module

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import Self

    import asyncpg

pytestmark = pytest.mark.integration


async def eventually(what: Callable[[], Awaitable[object]], seconds: float = 30.0) -> None:
    """Repeat until it no longer raises StoreUnavailable."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            await what()
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
        else:
            return


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_gone_and_back(store: Store, postgres: PostgresServer, end: str) -> None:
    before = [core_envelope() for _ in range(30)]
    await store.accept(before, sweep_after_seconds=SWEEP_AFTER)
    getattr(postgres, end)()
    for size in (1, 60):
        with pytest.raises(StoreUnavailable) as caught:
            await store.accept([core_envelope() for _ in range(size)], sweep_after_seconds=SWEEP_AFTER)
        assert caught.value.temporary
    with pytest.raises(StoreUnavailable):
        await store.claim(ids_of(before), uuid4(), LEASE)
    postgres.start()
    await eventually(store.ping)
    assert len(await store.claim(ids_of(before), uuid4(), LEASE)) == 30


async def test_killed_while_accepting_loses_nothing_that_was_committed(store: Store, postgres: PostgresServer) -> None:
    """Concurrent committers; the kill falls into the middle of transactions."""
    committed: list[tuple] = []
    unsure = 0

    async def commit_until_it_fails() -> None:
        nonlocal unsure
        try:
            while True:
                batch = [core_envelope(body=b"x" * 4096) for _ in range(50)]
                await store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
                committed.extend(batch)
        except StoreUnavailable:
            unsure += 1

    committers = [asyncio.create_task(commit_until_it_fails()) for _ in range(3)]
    while len(committed) < 500:
        await asyncio.sleep(0.01)
    postgres.kill()
    await asyncio.gather(*committers)
    assert unsure == 3
    postgres.start()
    await eventually(store.ping)
    found = await store.claim(ids_of(committed), uuid4(), LEASE)
    assert len(found) == len(committed)


async def test_a_session_ended_by_the_administrator(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    await store.ping()
    await postgres.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
        db_settings.db_name,
    )
    await eventually(store.ping)


async def test_no_answer_is_not_waited_for_long(postgres: PostgresServer, db_settings: Settings) -> None:
    hasty = postgres.settings(db_settings.db_name, db_timeout_seconds=0.5, db_connect_timeout_seconds=0.5)
    store = await Store.connect(hasty)
    postgres.pause()
    try:
        with Stopwatch() as call, pytest.raises(StoreUnavailable):
            await store.accept([core_envelope()], sweep_after_seconds=SWEEP_AFTER)
        assert call.seconds < 3
    finally:
        postgres.resume()
    await eventually(store.ping)
    await store.close()


async def test_a_read_only_server_is_not_used_again(postgres: PostgresServer, db_settings: Settings) -> None:
    """What a connection to the old primary meets after a fail-over (SQLSTATE 25006)."""
    store = await Store.connect(db_settings)
    await postgres.sql(f"ALTER DATABASE {db_settings.db_name} SET default_transaction_read_only = on")
    await postgres.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
        db_settings.db_name,
    )
    for size in (1, 60):
        await eventually(store.ping)
        with pytest.raises(StoreUnavailable) as caught:
            await store.accept([core_envelope() for _ in range(size)], sweep_after_seconds=SWEEP_AFTER)
        assert caught.value.sqlstate == "25006"
    with pytest.raises(StoreUnavailable, match="25006"):
        await store.probe_commit()
    await postgres.sql(f"ALTER DATABASE {db_settings.db_name} SET default_transaction_read_only = off")
    # The pool may have opened another one meanwhile; it is dropped just so.
    await eventually(lambda: store.accept([core_envelope()], sweep_after_seconds=SWEEP_AFTER))
    await store.close()


async def test_a_full_disk_answers_and_does_not_pass_the_probe(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    await postgres.sql(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END$$",
        database=db_settings.db_name,
    )
    await postgres.sql(
        "CREATE TRIGGER full_disk BEFORE INSERT ON deliveries FOR EACH ROW EXECUTE FUNCTION full_disk()",
        database=db_settings.db_name,
    )
    for _ in range(3):
        await store.ping()
        with pytest.raises(StoreUnavailable) as caught:
            await store.probe_commit()
        assert caught.value.sqlstate == "53100"
    await postgres.sql("DROP TRIGGER full_disk ON deliveries", database=db_settings.db_name)
    await store.probe_commit()


async def test_turned_away(postgres: PostgresServer) -> None:
    with pytest.raises(StoreMisconfigured) as caught:
        await Store.connect(postgres.settings("no_such_database"))
    assert (caught.value.fault, caught.value.temporary, caught.value.sqlstate) == ("operator", False, "3D000")


async def test_nobody_there() -> None:
    settings = Settings.load({"db_port": free_port(), "db_sslmode": "disable"}, {})
    with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{settings.db_port}"):
        await Store.connect(settings)


async def test_more_work_than_connections_waits(postgres: PostgresServer, db_settings: Settings) -> None:
    store = await Store.connect(postgres.settings(db_settings.db_name, db_pool_size=2))
    await asyncio.gather(
        *(store.accept([core_envelope() for _ in range(5)], sweep_after_seconds=SWEEP_AFTER) for _ in range(40))
    )
    assert await store.depth() == 200
    await store.close()


async def test_a_leader_whose_connection_died_does_not_lead(store: Store, postgres: PostgresServer) -> None:
    async with store.leader("sweeper") as lead, store.leader("sweeper") as other:
        assert await lead.try_acquire()
        await postgres.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'smtp-proxy leader sweeper'"
        )
        await asyncio.sleep(0.2)
        assert not lead.held
        assert await other.try_acquire()
        assert not await lead.try_acquire()
        await other.release()
        assert await lead.try_acquire()


async def test_leading_when_postgres_is_away(store: Store, postgres: PostgresServer) -> None:
    async with store.leader("sweeper") as lead:
        assert await lead.try_acquire()
        postgres.kill()
        await asyncio.sleep(0.2)
        assert not lead.held
        with pytest.raises(StoreUnavailable):
            await lead.try_acquire()
        postgres.start()
        await eventually(lead.try_acquire)
        assert lead.held


class Ear:
    """Listens for changed credentials, and knows what happened in which order. `deaf`: it can not connect."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        self.deaf = False
        connect = listening_module.open_session

        async def open_session(settings: Settings, purpose: str) -> asyncpg.Connection[asyncpg.Record]:
            if self.deaf:
                self.events.append("refused")
                raise ConnectionRefusedError
            connection = await connect(settings, purpose)
            self.events.append("connected")
            return connection

        monkeypatch.setattr(listening_module, "open_session", open_session)
        self.listening = asyncio.create_task(store.listen_credentials(lambda: self.events.append("told")))

    async def heard(self, pattern: str) -> None:
        """Wait until all that happened is this."""
        try:
            async with asyncio.timeout(20):
                while not re.fullmatch(pattern, " ".join(self.events)):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pytest.fail(f"what happened is {self.events}")


@pytest.fixture
async def ear(store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ear]:
    made = Ear(store, monkeypatch)
    yield made
    made.listening.cancel()
    await asyncio.gather(made.listening, return_exceptions=True)


async def test_listening_survives_a_restart_and_tells_of_what_was_missed(
    store: Store, postgres: PostgresServer, ear: Ear
) -> None:
    tenant = await store.create_tenant("acme")
    await ear.heard("connected told")
    postgres.kill()
    await ear.heard("connected told told( told)+")
    postgres.start()
    await ear.heard("connected told told( told)+ connected told")  # Something may have changed meanwhile.
    ear.events.clear()
    await eventually(store.ping)
    await store.create_credential(tenant.id, "app", "hash")
    await ear.heard("told")


async def test_who_no_longer_listens_is_told_so(postgres: PostgresServer, db_settings: Settings, ear: Ear) -> None:
    """Postgres is there and only this connection is not: at the loss, at each vain attempt, and when it is back."""
    await ear.heard("connected told")
    ear.deaf = True
    await postgres.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'smtp-proxy listen smtp_proxy_credentials' AND datname = $1",
        db_settings.db_name,
    )
    await ear.heard("connected told told( refused told){2,}")
    ear.deaf = False
    await ear.heard("connected told told( refused told){2,} connected told")


class Cable:
    """The way to Postgres: connections made so far can be cut off without a word, new ones work."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._silent: list[asyncio.Event] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        for silent in self._silent:
            silent.set()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        silent = asyncio.Event()
        self._silent.append(silent)
        behind, before = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            await asyncio.gather(self._pass_on(reader, before, silent), self._pass_on(behind, writer, silent))
        except (OSError, asyncio.CancelledError):
            pass  # the test is over
        finally:
            for end in (writer, before):
                end.transport.abort()

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, silent: asyncio.Event) -> None:
        while data := await source.read(65_536):
            if not silent.is_set():
                target.write(data)
        target.close()


async def test_connections_that_fell_silent_are_given_up_together(
    postgres: PostgresServer, db_settings: Settings
) -> None:
    """As after a fail-over, or a dropped entry of a NAT: the first costs its patience, and no other one does."""
    async with Cable(postgres.port) as cable:
        slow = db_settings.model_copy(update={"db_port": cable.port, "db_timeout_seconds": 60.0})
        store = await Store.connect(slow, purpose="silence test")
        await asyncio.gather(*(store.accept([core_envelope()], sweep_after_seconds=SWEEP_AFTER) for _ in range(8)))
        cable.cut()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await store.probe_commit()
        assert time.monotonic() - began < 5
        async with asyncio.timeout(10):
            await store.probe_commit()
            await asyncio.gather(*(store.accept([core_envelope()], sweep_after_seconds=SWEEP_AFTER) for _ in range(8)))
        await store.close()
