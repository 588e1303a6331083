"""The store over Postgres.

Each method is one transaction, and raises StoreUnavailable when Postgres can not do it now.

Not here: when to retry, whom to deliver to, what a reply means. The store is told and keeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import asyncpg

from smtp_proxy.aws import issued
from smtp_proxy.clock import Clock, SystemClock
from smtp_proxy.errors import StoreUnavailable
from smtp_proxy.model.attempt import Attempt, Postponed, Sending
from smtp_proxy.model.change import Change
from smtp_proxy.model.envelope import DeliveryState, Job
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.limits import Held, Placement
from smtp_proxy.model.message import Message, MessageSummary
from smtp_proxy.model.outcome import Consequences
from smtp_proxy.model.submission import SubmissionKey
from smtp_proxy.store import claim, consequences, held, listing, lookup, migrate, once, partitions, record, roles
from smtp_proxy.store.accept import CoreEnvelope, Encoder, accept, accept_placed, encode, microseconds, rehearse
from smtp_proxy.store.accounts import Accounts, present
from smtp_proxy.store.certificates import FleetCertificates
from smtp_proxy.store.domains import Domains
from smtp_proxy.store.faults import READ_ONLY, store_errors
from smtp_proxy.store.ids import first_id
from smtp_proxy.store.leader import Leadership, close_quietly
from smtp_proxy.store.listing import Wanted
from smtp_proxy.store.locks import Locks
from smtp_proxy.store.outcomes import OutcomeStore
from smtp_proxy.store.pool import open_pool, open_session, refuse_unknown_pooler, settled, where
from smtp_proxy.store.pooled import PooledWriters
from smtp_proxy.store.queries import QUERIES
from smtp_proxy.store.reroute import Reroutes
from smtp_proxy.store.retention import Retentions, forget_settled
from smtp_proxy.store.webhooks import Webhooks, tell
from smtp_proxy.store.writer import Writer, Writers, writer_count
from smtp_proxy.telemetry.metrics import UNKNOWN_OUTCOMES

if TYPE_CHECKING:
    from smtp_proxy.config import Settings
    from smtp_proxy.store.pool import Connection, Pool

log = logging.getLogger(__name__)

# What one claim may load into a worker's memory, bytes; what is beyond goes back to the queue.
CLAIM_MAX_BYTES = 64 * 1024 * 1024
# Counting is work for each: when so much waits, nobody asks how much exactly.
_DEPTH_COUNTED = 200_000


class Store(Reroutes, Accounts, Domains, OutcomeStore, Webhooks, Retentions, FleetCertificates):
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
            return _count(await connection.execute(QUERIES["forget_submission_keys"], limit))

    async def ensure_partitions(self, now: datetime, days_ahead: int) -> list[str]:
        """Make the partitions of today and `days_ahead` more days that do not exist; returns their names.

        Raises SchemaBusy: a long statement is in the way; try again later.
        """
        async with self._session("making partitions") as connection:
            locks = Locks(connection, try_seconds=self._settings.migrate_lock_seconds, total_seconds=0)
            return await partitions.ensure_partitions(connection, now, days_ahead, locks)

    # -- mail out

    async def claim(
        self, envelope_ids: Sequence[UUID], worker_id: UUID, lease_seconds: float, *, max_bytes: int = CLAIM_MAX_BYTES
    ) -> list[Job]:
        """Take the queued and due deliveries of these envelopes for this worker, with their bodies.

        What another worker is just claiming is skipped. At least one envelope is returned if any can be claimed; what
        would exceed `max_bytes` goes back and is found by the next sweep.
        """
        if not envelope_ids:
            return []
        async with self._connection("claiming mail") as connection:
            return await claim.claim(connection, envelope_ids, worker_id, timedelta(seconds=lease_seconds), max_bytes)

    async def renew(self, envelope_ids: Sequence[UUID], worker_id: UUID, lease_seconds: float) -> dict[UUID, bool]:
        """Push the lease of what this worker holds of these; says of each envelope whether that was all of it.

        False: others hold a delivery of it just now, so its lease stays as it was. What is no longer this worker's is
        not there.
        """
        if not envelope_ids:
            return {}
        values = (envelope_ids, min(envelope_ids), max(envelope_ids), worker_id, timedelta(seconds=lease_seconds))
        async with self._connection("renewing leases") as connection:
            rows = await connection.fetch(QUERIES["renew"], *values)
        return {row["envelope_id"]: row["whole"] for row in rows}

    async def record(self, attempts: Sequence[Attempt], then: Consequences | None = None) -> int:
        """Store attempts and settle or re-queue their deliveries; returns how many were still this worker's.

        An attempt whose claim was lost meanwhile (lease ran out) is left out: fencing. `then` is done in the same
        transaction, for the attempts that stand recorded.
        """
        if not attempts:
            return 0
        async with self._connection("recording attempts") as connection:
            if not (then or self._webhooks_about or self._privacy_about):
                return _count(await connection.execute(QUERIES["record"], *record.columns(attempts)))
            async with connection.transaction():
                count = _count(await connection.execute(QUERIES["record"], *record.columns(attempts)))
                if then:
                    places = await consequences.recorded(connection, attempts, then)
                    await consequences.write(connection, places, then, self._sweep_after)
                if self._webhooks_about:
                    await tell(connection, attempts)
                if self._privacy_about:
                    await forget_settled(connection, [attempt.envelope_id for attempt in attempts])
        return count

    async def postpone(self, postponed: Sequence[Postponed], then: Consequences | None = None) -> int:
        """Queue these again without an attempt; returns how many were still claimed by that worker.

        `then` is done in the same transaction, for those.
        """
        if not postponed:
            return 0
        async with self._connection("postponing") as connection, connection.transaction():
            rows = await connection.fetch(QUERIES["postpone"], *record.postponed_columns(postponed))
            if then:
                places = {(row["envelope_id"], row["recipient_number"]) for row in rows}
                await consequences.write(connection, places, then, self._sweep_after)
        return len(rows)

    async def sending(self, sendings: Sequence[Sending]) -> set[tuple[UUID, int]]:
        """Write down that these are about to be sent for good; returns (envelope, recipient) of those still claimed.

        Such an attempt is of unknown outcome until it is recorded. Given back to the queue before that, it counts as
        one, and is tried again or held by its tenant's policy.
        """
        if not sendings:
            return set()
        async with self._connection("writing down what is sent") as connection:
            rows = await connection.fetch(QUERIES["sending"], *record.sending_columns(sendings))
        return {(row["envelope_id"], row["recipient_number"]) for row in rows}

    async def release(self, worker_id: UUID) -> dict[UUID, Lane]:
        """Give back all that this worker has claimed and not recorded; returns the envelopes, for publishing.

        Those among them that may have been sent are counted, and may be held now: see `sending`.
        """
        longest = timedelta(seconds=self._settings.worker_lease_seconds)
        async with self._connection("releasing claims") as connection:
            rows = await connection.fetch(QUERIES["release"], worker_id, longest)
            released = {row["envelope_id"]: Lane(row["lane"]) for row in rows}
            await _count_unknown(connection, list(released))
        return released

    async def sweep(self, limit: int, sweep_after_seconds: float, lane: Lane = Lane.TRANSACTIONAL) -> list[UUID]:
        """Deliveries of a lane that are due and untaken, or whose lease ran out: queued, and returned for publishing.

        A quarter of them became due last, the rest have been due for longest. `limit` counts deliveries. They are left
        alone for `sweep_after_seconds`, so that the stream can do its work.
        """
        async with self._connection("sweeping") as connection:
            rows = await connection.fetch(QUERIES["sweep"], limit, timedelta(seconds=sweep_after_seconds), lane)
            await _count_unknown(connection, _distinct([row for row in rows if row["was_taken"]]))
        return _distinct(rows)

    async def release_held(self, envelope_ids: Sequence[UUID]) -> list[UUID]:
        """Make the held deliveries of these messages due; returns whose there were."""
        async with self._connection("releasing held mail") as connection:
            return await held.change_named(connection, Change.RELEASE, envelope_ids)

    async def release_all_held(self, tenant_id: UUID | None = None, *, batch: int = 1000) -> AsyncIterator[int]:
        """Make all that is held now due, of a tenant or of all, oldest first; yields how many messages each time.

        Each batch is a transaction of its own, and looks at some `batch` deliveries; what was released stays so.
        """
        # Ids of other processes may be a little ahead. What is held from now on is not waited for.
        after: UUID | None = held.FIRST
        before = first_id(self._clock.now() + timedelta(minutes=1))
        while after is not None:
            async with self._connection("releasing held mail") as connection:
                released, after = await held.release_next(connection, tenant_id, after, before, batch)
            yield released

    async def change(self, change: Change, envelope_ids: Sequence[UUID]) -> list[UUID]:
        """Hold, release or cancel what these messages have undelivered; returns those that had any such delivery.

        Webhooks are told of it, in the same transaction.
        """
        async with self._connection(f"changing mail: {change.value}") as connection:
            return await held.change_named(connection, change, envelope_ids)

    async def change_all(self, change: Change, tenant_id: UUID, *, batch: int = 1000) -> AsyncIterator[int]:
        """As `change`, for all that a tenant has now, oldest first; yields how many messages each time.

        Each batch is a transaction of its own and looks at so many messages; what was changed stays so.
        """
        after: UUID | None = held.FIRST
        before = first_id(self._clock.now() + timedelta(minutes=1))
        while after is not None:
            async with self._connection(f"changing mail: {change.value}") as connection:
                changed, after = await held.change_next(connection, change, tenant_id, after, before, batch)
            yield changed

    async def in_hand(self, *, tenant_id: UUID | None = None, envelope_ids: Sequence[UUID] | None = None) -> int:
        """How many messages, of a tenant or of these, a worker has in hand; `change` leaves them as they are."""
        ids = list(envelope_ids) if envelope_ids is not None else None
        longest = timedelta(seconds=self._settings.worker_lease_seconds)
        async with self._connection("counting what is under way") as connection:
            return int(await connection.fetchval(QUERIES["in_hand"], longest, tenant_id, ids))

    async def held_by_tenant(self) -> dict[UUID, Held]:
        """How much is held, of each tenant that has any. Reads all that is held: not for every message."""
        async with self._connection("counting held mail") as connection:
            rows = await connection.fetch(QUERIES["held_by_tenant"])
        return {row["tenant_id"]: Held(row["messages"], row["bytes"]) for row in rows}

    async def depth(self) -> int:
        """Deliveries that are queued and due; no more are counted than twice what closes the gate, 200,000 at least."""
        most = max(_DEPTH_COUNTED, 2 * self._settings.ingress_ready_depth_high)
        async with self._connection("counting the queue") as connection:
            ahead = timedelta(seconds=self._settings.sweep_after_seconds)
            return int(await connection.fetchval(QUERIES["depth"], ahead, most))

    async def backlog_age_seconds(self) -> float:
        """For how long the oldest delivery that is due has waited; of no more of them than `depth` counts."""
        async with self._connection("looking how old the queue is") as connection:
            ahead = timedelta(seconds=self._settings.sweep_after_seconds)
            return float(await connection.fetchval(QUERIES["backlog_age"], ahead, _DEPTH_COUNTED))

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
        wanted: Wanted | None = Wanted(tenant_id, state, before)
        found: list[MessageSummary] = []
        while wanted is not None and len(found) < limit:
            async with self._connection("listing messages") as connection, connection.transaction(readonly=True):
                some, wanted = await listing.look(connection, wanted, limit - len(found))
            found += some
        return found

    async def message(self, envelope_id: UUID) -> Message:
        """One message with deliveries and attempts. Raises NotFound."""
        async with self._connection("looking up a message") as connection:
            row = present(await connection.fetchrow(QUERIES["message"], envelope_id), f"message {envelope_id}")
            deliveries = await connection.fetch(QUERIES["message_deliveries"], envelope_id)
            attempts = await connection.fetch(QUERIES["message_attempts"], envelope_id)
        return lookup.message(row, deliveries, attempts)

    # -- below

    @property
    def _sweep_after(self) -> timedelta:
        return timedelta(seconds=self._settings.sweep_after_seconds)

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


async def _count_unknown(connection: Connection, given_back: Sequence[UUID]) -> None:
    """Of these, given back a moment ago, count the attempts that nobody knows the outcome of."""
    if given_back:
        query = QUERIES["settled_unknown"]
        count = await connection.fetchval(query, given_back, min(given_back), max(given_back))
        if count:
            UNKNOWN_OUTCOMES.inc(count)
            log.warning("%d attempts ended with an unknown outcome", count, extra={"action": "outcome_unknown"})


def _count(status: str) -> int:
    """The number of rows in a command status such as "UPDATE 3"."""
    return int(status.rsplit(" ", 1)[-1])


def _distinct(rows: Sequence[Any]) -> list[UUID]:
    """Envelope ids, each once, in the order they came."""
    return list(dict.fromkeys(row["envelope_id"] for row in rows))
