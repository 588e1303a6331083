"""Locks for changes of the schema: taken in short tries, so that nobody queues behind us for long.

A statement that waits for a strong lock stands in a queue, and whoever comes later waits behind it, however weak their
own lock is. So each try waits `try_seconds` at most, gives everything back, and comes again after a pause, up to
`total_seconds`. Somebody else looks on meanwhile (`onlooker`) and can name at the end what was in the way.

Autovacuum gives way to whoever has waited for Postgres's deadlock_timeout (1 s unless set otherwise). A try that is
shorter never sees that, so a try should be longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

from smtp_proxy.errors import SchemaBusy
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from smtp_proxy.store.pool import Connection

log = logging.getLogger(__name__)
_T = TypeVar("_T")

# While one lock is held, the next is waited for so long: below deadlock_timeout, or a claim that takes the two the
# other way round could be a deadlock's victim.
_SECOND_LOCK_MS: Final = 200
# What reads a table from end to end may take.
_LONGEST_SECONDS: Final = 86_400.0
_PAUSE_SECONDS: Final = 0.1
_PAUSE_FACTOR_MAX: Final = 4.0
_BUSY = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)


class Locks:
    """How one connection takes locks for changes of the schema."""

    def __init__(
        self, connection: Connection, *, try_seconds: float, total_seconds: float, onlooker: Connection | None = None
    ) -> None:
        """`total_seconds` 0: one try. `onlooker`: another connection; without one nobody can be named."""
        self.total_seconds = total_seconds
        self._connection = connection
        self._try_seconds = try_seconds
        self._onlooker = onlooker
        self._in_the_way: list[str] = []

    async def transaction(self, what: str, work: Callable[[], Awaitable[_T]], tables: Sequence[str] = ()) -> _T:
        """Do it in a transaction in which no lock is waited for longer than a try; again, until it could be done.

        Args:
            what: for the error.
            work: is called again when a try failed; what it did then is undone.
            tables: locked beforehand, all before anything is done, since the work needs more than one.

        Raises:
            SchemaBusy: it could not be done in time, and nothing of it is.
        """
        deadline = time.monotonic() + self.total_seconds
        for tried in itertools.count():
            began = time.monotonic()
            try:
                async with self._looking_on():
                    if tried and len(tables) > 1:
                        await self._shake_off(tables)
                    async with self._connection.transaction():
                        await self._take(tables)
                        return await work()
            except _BUSY as error:
                now = time.monotonic()
                pause = self._pause(tried, now - began)
                if now + pause > deadline:
                    raise self._gave_up(what) from error
                log.info("%s: waiting for a lock", what, extra={"action": "schema_waits", "blockers": self._in_the_way})
            await asyncio.sleep(pause)
        raise AssertionError("counted to infinity")

    async def patiently(self, what: str, statement: str) -> None:
        """One statement outside of a transaction, behind which nobody queues (as CREATE INDEX CONCURRENTLY).

        Raises SchemaBusy.
        """
        await self._connection.execute(f"SET lock_timeout = {max(1, int(self.total_seconds * 1000))}")
        try:
            async with self._looking_on():
                await self._connection.execute(statement, timeout=_LONGEST_SECONDS)
        except _BUSY as error:
            raise self._gave_up(what) from error

    # -- below

    def _pause(self, tried: int, took_seconds: float) -> float:
        """Longer than the try that others may have queued behind; with jitter, so as not to keep step with anybody."""
        factor = min(1 + tried / 4, _PAUSE_FACTOR_MAX)
        return max(_PAUSE_SECONDS, took_seconds * factor) * random.uniform(1.0, 1.5)  # noqa: S311

    async def _take(self, tables: Sequence[str]) -> None:
        await self._connection.execute(f"SET LOCAL lock_timeout = {self._try_ms}")
        for n, table in enumerate(tables):
            # Each partition is waited for by itself, so all of the statement is bounded as well.
            limit = _SECOND_LOCK_MS if n else self._try_ms
            await self._lock(table, limit)
        if tables:
            await self._connection.execute(f"SET LOCAL lock_timeout = {self._try_ms}")

    async def _shake_off(self, tables: Sequence[str]) -> None:
        """Each by itself for a whole try, so that an autovacuum gives way: for the second one nobody waits so long."""
        for table in tables:
            async with self._connection.transaction():
                await self._lock(table, self._try_ms)

    async def _lock(self, table: str, limit_ms: int) -> None:
        # Names stand in migrations and numbers in settings: there is nothing to quote.
        try:
            await self._connection.execute(
                f"SET LOCAL lock_timeout = {limit_ms}; SET LOCAL statement_timeout = {limit_ms}"
            )
            await self._connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        except asyncpg.QueryCanceledError as error:
            raise asyncpg.LockNotAvailableError(str(error)) from error
        await self._connection.execute("SET LOCAL statement_timeout = 0")

    def _gave_up(self, what: str) -> SchemaBusy:
        """The error that names who was in the way, as far as anybody saw."""
        who = "; ".join(self._in_the_way) or "nobody who was seen"
        spent = f"{self.total_seconds:g} s (MIGRATE_PATIENCE_SECONDS)" if self.total_seconds else "one try"
        return SchemaBusy(
            f"{what}: the locks for it could not be had in {spent}, and nothing of it was done. In the way: {who}. "
            "End what is in the way (pg_terminate_backend), or try again later"
        )

    @property
    def _try_ms(self) -> int:
        return max(1, int(self._try_seconds * 1000))

    @contextlib.asynccontextmanager
    async def _looking_on(self) -> AsyncIterator[None]:
        if self._onlooker is None:
            yield
            return
        done = asyncio.Event()
        watching = asyncio.create_task(self._watch(self._onlooker, done), name="lock-watch")
        try:
            yield
        finally:
            done.set()
            await watching

    async def _watch(self, onlooker: Connection, done: asyncio.Event) -> None:
        pid = self._connection.get_server_pid()
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            while not done.is_set():
                if rows := await onlooker.fetch(QUERIES["blockers"], pid):
                    self._in_the_way = [describe(row) for row in rows]
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(done.wait(), min(self._try_seconds / 4, 1.0))


def describe(row: Any) -> str:
    """`pid 4711 (psql, client backend, idle in transaction, for 312 s): SELECT …`."""
    if not row["pid"]:
        return "a prepared transaction (see pg_prepared_xacts)"
    kind = [row["application_name"], row["backend_type"], row["state"]]
    if row["seconds"] is not None:
        kind.append(f"for {row['seconds']:.0f} s")
    return f"pid {row['pid']} ({', '.join(filter(None, kind))}): {row['query'] or 'no query to be seen'}"
