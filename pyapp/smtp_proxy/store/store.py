"""The store over Postgres.

Each method is one transaction, and raises StoreUnavailable when Postgres can not do it now.

Not here: when to retry, whom to deliver to, what a reply means. The store is told and keeps.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self
from uuid import UUID

import asyncpg

from smtp_proxy.aws import issued
from smtp_proxy.clock import Clock, SystemClock
from smtp_proxy.errors import StoreUnavailable
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.model.limits import Placement
from smtp_proxy.model.message import Message, MessageSummary
from smtp_proxy.model.submission import SubmissionKey
from smtp_proxy.store import listing, lookup, migrate, once, partitions, roles
from smtp_proxy.store.accept import CoreEnvelope, Encoder, accept, accept_placed, encode, microseconds, rehearse
from smtp_proxy.store.accounts import Accounts, present
from smtp_proxy.store.api_keys import ApiKeys
from smtp_proxy.store.certificates import FleetCertificates
from smtp_proxy.store.changes import Changes
from smtp_proxy.store.domains import Domains
from smtp_proxy.store.faults import READ_ONLY, store_errors
from smtp_proxy.store.leader import Leadership, close_quietly
from smtp_proxy.store.listing import Wanted
from smtp_proxy.store.locks import Locks
from smtp_proxy.store.mail_out import MailOut
from smtp_proxy.store.outcomes import OutcomeStore
from smtp_proxy.store.pool import open_pool, open_session, refuse_unknown_pooler, settled, where
from smtp_proxy.store.pooled import PooledWriters
from smtp_proxy.store.queries import QUERIES, affected
from smtp_proxy.store.reroute import Reroutes
from smtp_proxy.store.retention import Retentions
from smtp_proxy.store.webhooks import Webhooks
from smtp_proxy.store.writer import Writer, Writers, writer_count

if TYPE_CHECKING:
    from smtp_proxy.config import Settings
    from smtp_proxy.store.pool import Connection, Pool


class Store(
    MailOut, Changes, Reroutes, Accounts, ApiKeys, Domains, OutcomeStore, Webhooks, Retentions, FleetCertificates
):
    """All of smtp-proxy's data in Postgres. Made by `connect`."""

    def __init__(self, settings: Settings, pool: Pool, writers: Writers | None, clock: Clock) -> None:
        self._settings = settings
        self._pool = pool
        self._writers = writers
        self._clock = clock

    # -- life

    @classmethod
    async def connect(
        cls,
        settings: Settings,
        *,
        purpose: str = "",
        check_schema: bool = True,
        accepts: bool = True,
        clock: Clock | None = None,
    ) -> Self:
        """Open the pool.

        Args:
            settings: where, and with how many connections.
            purpose: is shown in pg_stat_activity.
            check_schema: False: whatever schema there is.
            accepts: False: for a process that takes no mail in; no connections are kept for that, the pool has all.
            clock: the time, for tests.

        Raises:
            StoreUnavailable: cannot be reached (StoreMisconfigured: turned away, or not Postgres itself).
            SchemaMismatch: migrations are missing, changed, or of a newer release.
        """
        with store_errors(f"connecting to Postgres at {where(settings)}"):
            kind = Writers if settings.db_pooler == "none" else PooledWriters
            writers = kind(settings, purpose) if accepts else None
            pool = await open_pool(
                settings, purpose, settings.db_pool_size - (writer_count(settings) if accepts else 0)
            )
            store = cls(settings, pool, writers, clock or SystemClock())
            try:
                async with pool.acquire() as connection:
                    await refuse_unknown_pooler(connection, settings)
                    if check_schema:
                        async with settled(connection, settings):
                            await migrate.check_schema(connection, migrate.read_migrations())
            except BaseException:
                pool.terminate()
                raise
        return store

    @classmethod
    async def migrate(
        cls, settings: Settings, *, kinds: Sequence[str] = ("pre", "post"), clock: Clock | None = None
    ) -> list[str]:
        """Apply missing migrations and make partitions; returns the labels of what was applied.

        With MIGRATE_OWNER the roles of services are made, and the schema is the owner's (`roles`).

        Raises:
            StoreUnavailable: cannot be reached (StoreMisconfigured: turned away, or a role is not as it should be).
            ConfigurationError, SecretUnavailable: MIGRATE_PROXY_SECRET can not be read or written.
            SchemaBusy: others hold the locks that it needs.
            SchemaMismatch: an applied migration was changed afterwards.
        """
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(store_errors(f"migrating Postgres at {where(settings)}"))
            connection, onlooker = [
                await stack.enter_async_context(_opened(settings, purpose)) for purpose in ("migrate", "migrate watch")
            ]
            locks = Locks(
                connection,
                try_seconds=settings.migrate_lock_seconds,
                total_seconds=settings.migrate_patience_seconds,
                onlooker=onlooker,
            )
            applied = await migrate.apply_migrations(
                connection,
                migrate.read_migrations(),
                kinds,
                locks=locks,
                prepare=lambda: _hand_over(settings, connection, locks),
            )
            now = (clock or SystemClock()).now()
            await partitions.ensure_partitions(connection, now, settings.partition_days_ahead, locks)
        return [migration.label for migration in applied]

    async def close(self, timeout_seconds: float = 5.0) -> None:
        """Close the pool; connections still in use after the time-out are cut."""
        if self._writers is not None:
            self._writers.expire()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._pool.close()
        except Exception:  # it must be gone
            self._pool.terminate()

    async def ping(self) -> None:
        """One round trip. Raises StoreUnavailable."""
        async with self._connection("asking Postgres for a sign of life") as connection:
            await connection.execute(QUERIES["ping"])

    async def probe_commit(self) -> None:
        """Try whether mail can be stored: a commit that is flushed and leaves no message behind.

        A server whose disk is full, that is read-only or waits for a lost standby passes `ping` and fails here.

        Raises:
            StoreUnavailable, StoreError: as `accept`.
        """
        doing = "trying whether mail can be stored"
        async with self._connection(doing) as connection:
            if await connection.fetchval(QUERIES["is_read_only"]) == "on":  # asked first: refusals fill its log
                raise asyncpg.ReadOnlySQLTransactionError("the server only reads")
        async with self._writer(doing) as writer:
            await rehearse(writer, self._clock.now())

    # -- mail in

    async def accept(
        self,
        batch: Sequence[CoreEnvelope],
        *,
        sweep_after_seconds: float,
        placements: Mapping[bytes, Placement] | None = None,
    ) -> None:
        """Store a batch, durably, all of it or nothing; on return it is committed.

        `placements`: by envelope id, those that are not ready at once.

        Raises:
            StoreUnavailable: not committed, or the answer to COMMIT was lost and nobody knows; then the client is told
                to try again, and may deliver twice (at least once).
            StoreError: Postgres refused a value; nothing is stored.
        """
        if placements and any(row[0] in placements for row in batch):
            now = self._clock.now()
            async with self._writer("storing accepted mail") as writer:
                await accept_placed(writer, batch, now + timedelta(seconds=sweep_after_seconds), now, placements)
        elif batch:
            await self.accept_encoded(
                lambda sweep_at_us: encode(batch, sweep_at_us), len(batch), sweep_after_seconds=sweep_after_seconds
            )

    async def accept_encoded(self, encoder: Encoder, messages: int, *, sweep_after_seconds: float) -> None:
        """As `accept`, for `messages` envelopes that the core writes down: the same for the least work."""
        sweep_at = self._clock.now() + timedelta(seconds=sweep_after_seconds)
        async with self._writer("storing accepted mail") as writer:
            await accept(writer, encoder(microseconds(sweep_at)), messages)

    async def accept_once(
        self,
        batch: Sequence[CoreEnvelope],
        keys: Mapping[bytes, SubmissionKey],
        *,
        sweep_after_seconds: float,
        placements: Mapping[bytes, Placement] | None = None,
    ) -> dict[bytes, bytes]:
        """As `accept`, but of messages with the same key the first alone is stored; by envelope id `keys`.

        Returns under which id each is stored: its own, or that of the first, which is committed too. Whoever is about
        to store the same key is waited for.
        """
        if not batch:
            return {}
        now = self._clock.now()
        times = once.Times(now, now + timedelta(seconds=sweep_after_seconds))
        async with self._connection("storing accepted mail") as connection:
            return await once.accept_once(connection, batch, keys, placements or {}, times)

    async def idempotent_tenants(self) -> dict[UUID, int]:
        """For whom submission is idempotent, and for how many seconds."""
        async with self._connection("listing tenants' policies") as connection:
            rows = await connection.fetch(QUERIES["idempotent_tenants"])
        return {row["id"]: row["idempotency_seconds"] for row in rows}

    async def forget_submission_keys(self, limit: int = 10_000) -> int:
        """Delete keys that have expired, at most so many; returns how many."""
        async with self._connection("forgetting submission keys") as connection:
            return affected(await connection.execute(QUERIES["forget_submission_keys"], limit))

    async def ensure_partitions(self, now: datetime, days_ahead: int) -> list[str]:
        """Make the partitions of today and `days_ahead` more days that do not exist; returns their names.

        Raises SchemaBusy: a long statement is in the way; try again later.
        """
        async with self._session("making partitions") as connection:
            locks = Locks(connection, try_seconds=self._settings.migrate_lock_seconds, total_seconds=0)
            return await partitions.ensure_partitions(connection, now, days_ahead, locks)

    def leader(self, name: str) -> Leadership:
        """Leadership by that name, not yet taken; see Leadership."""
        return Leadership(self._settings, name)

    # -- looking up

    async def list_messages(
        self,
        *,
        tenant_id: UUID | None = None,
        state: DeliveryState | None = None,
        limit: int = 50,
        before: UUID | None = None,
    ) -> list[MessageSummary]:
        """Newest first; `state`: at least one recipient stands there; `before`: the last id of the page before.

        A rare state may make it look at many messages: in many short statements, of which none waits for the last.
        """
        found, _ = await self._list(Wanted(tenant_id, state, before), limit, float("inf"))
        return found

    async def page_of_messages(
        self,
        *,
        tenant_id: UUID | None,
        state: DeliveryState | None,
        limit: int,
        before: UUID | None,
        patience_seconds: float,
    ) -> tuple[list[MessageSummary], UUID | None]:
        """As `list_messages`, and what is `before` the next page (None: there is none).

        It looks for no longer than so, but for the last statement, and then gives what it has.
        """
        found, rest = await self._list(Wanted(tenant_id, state, before), limit + 1, patience_seconds)
        if len(found) > limit:
            return found[:limit], found[limit - 1].id
        return found, None if rest is None else rest.before

    async def _list(
        self, wanted: Wanted | None, limit: int, patience_seconds: float
    ) -> tuple[list[MessageSummary], Wanted | None]:
        """And where to look on. A rare state: many short statements, of which none waits for the last."""
        until = self._clock.monotonic() + patience_seconds
        found: list[MessageSummary] = []
        while wanted is not None and len(found) < limit:
            async with self._connection("listing messages") as connection, connection.transaction(readonly=True):
                some, wanted = await listing.look(connection, wanted, limit - len(found))
            found += some
            if self._clock.monotonic() >= until:
                break
        return found, wanted

    async def message(self, envelope_id: UUID) -> Message:
        """One message with deliveries and attempts. Raises NotFound."""
        async with self._connection("looking up a message") as connection:
            row = present(await connection.fetchrow(QUERIES["message"], envelope_id), f"message {envelope_id}")
            deliveries = await connection.fetch(QUERIES["message_deliveries"], envelope_id)
            attempts = await connection.fetch(QUERIES["message_attempts"], envelope_id)
        return lookup.message(row, deliveries, attempts)

    # -- below

    @asynccontextmanager
    async def _connection(self, doing: str) -> AsyncIterator[Connection]:
        """A connection of the pool. One that failed us is dropped; where it broke or fell silent, all of them are."""
        with store_errors(doing):
            async with self._pool.acquire(timeout=self._settings.db_timeout_seconds) as connection:
                try:
                    with store_errors(doing):
                        async with settled(connection, self._settings):
                            yield connection
                except asyncio.CancelledError:
                    # Given back as it is, the pool would wait for its answer: long, where there is none. Whoever lost
                    # patience shall not meet the next one of the same kind either.
                    _drop(connection)
                    await self._expire()
                    raise
                except StoreUnavailable as error:
                    _drop(connection)
                    if error.sqlstate in (None, READ_ONLY):
                        await self._expire()
                    raise

    @asynccontextmanager
    async def _session(self, doing: str) -> AsyncIterator[Connection]:
        """As `_connection`, for several transactions: behind a pooler that is past it."""
        if self._settings.db_pooler == "none":
            async with self._connection(doing) as connection:
                yield connection
        else:
            with store_errors(doing):
                async with _opened(self._settings, doing) as connection:
                    yield connection

    @asynccontextmanager
    async def _writer(self, doing: str) -> AsyncIterator[Writer]:
        """A connection that only writes, by the rules of `_connection`."""
        if self._writers is None:
            raise RuntimeError(f"{doing}: this store was opened with accepts=False")
        try:
            with store_errors(doing):
                async with asyncio.timeout(self._settings.db_timeout_seconds), self._writers.acquire() as writer:
                    with store_errors(doing):
                        yield writer
        except asyncio.CancelledError:
            await self._expire()
            raise
        except StoreUnavailable as error:
            if error.sqlstate in (None, READ_ONLY):
                await self._expire()
            raise

    async def _expire(self) -> None:
        """No connection that stands now is used again."""
        if self._writers is not None:
            self._writers.expire()
        await self._pool.expire_connections()


async def _hand_over(settings: Settings, connection: Connection, locks: Locks) -> None:
    wanted = roles.Roles.of(settings)
    if wanted is None:
        return
    password = ""
    if wanted.proxy_login:
        password = await issued.password(settings.migrate_proxy_secret, wanted.proxy_login)

    async def try_login() -> None:
        async with _opened(settings, "migrate check"):
            pass

    await roles.hand_over(connection, locks, wanted, proxy_password=password, try_login=try_login)


@asynccontextmanager
async def _opened(settings: Settings, purpose: str) -> AsyncIterator[Connection]:
    """A connection to Postgres itself, outside of the pool."""
    connection = await open_session(settings, purpose)
    try:
        yield connection
    finally:
        await close_quietly(connection)


def _drop(connection: Connection) -> None:
    with contextlib.suppress(asyncpg.InterfaceError):  # already out of the pool
        connection.terminate()
