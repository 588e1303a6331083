"""What is no longer kept: a part of `Store`. Mail with a recipient that is not settled stays, whatever its age.

So does mail of which a webhook has not been told yet, until its event is told or given up.

A day is dropped whole: its partitions are detached together, within one short lock in which it is made sure that
nothing in them is open, and dropped afterwards, when nobody can be waiting for them. A process that dies in between
leaves detached tables behind, which the next round finds by their names and our mark. A day of which the deliveries
have no partition of their own stays: they lie in the default one, and may be open.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

from smtp_proxy.model.retention import SETTLED, Forgotten, Retention
from smtp_proxy.store.accounts import present
from smtp_proxy.store.ids import first_id
from smtp_proxy.store.locks import Locks
from smtp_proxy.store.partitions import TABLES
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import asyncpg

    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings
    from smtp_proxy.store.pool import Connection

# `bodies` has partitions of releases before 0008.
_PARENTS: Final = (*TABLES, "bodies")
_PARTITION: Final = re.compile(rf"^(?:{'|'.join(_PARENTS)})_p(\d{{8}})$")
# Each try keeps others waiting for MIGRATE_LOCK_SECONDS at most; the next round comes in an hour.
_PATIENCE_SECONDS: Final = 20.0
# Rows that one statement looks at.
_LOOKED_AT: Final = 20_000
# Others may detach days as well, to keep them elsewhere: only what bears this is ours to drop.
_MARK: Final = "smtp-proxy: detached by retention, to be dropped"
_SETTLED: Final = [int(state) for state in SETTLED]


class Retentions:
    """A part of `Store`, which brings the connections."""

    _settings: Settings
    _clock: Clock
    # Whether any tenant's content is not to be kept; until it is known, attempts are recorded as if.
    _privacy_about: bool = True

    def _connection(self, doing: str) -> AbstractAsyncContextManager[Connection]:
        raise NotImplementedError

    def _session(self, doing: str) -> AbstractAsyncContextManager[Connection]:
        raise NotImplementedError

    async def retentions(self) -> list[Retention]:
        """Of every tenant."""
        async with self._connection("reading how long mail is kept") as connection:
            return [Retention(**dict(row)) for row in await connection.fetch(QUERIES["retentions"], None)]

    async def tenant_retention(self, name: str) -> Retention:
        """Raises NotFound."""
        async with self._connection(f"reading how long mail of {name} is kept") as connection:
            row = await connection.fetchrow(QUERIES["retentions"], name)
        return Retention(**dict(present(row, f"tenant {name}")))

    async def set_retention(self, retention: Retention) -> None:
        """For the tenant that it names."""
        async with self._connection("changing how long mail is kept") as connection:
            values = (retention.tenant_id, retention.days, retention.keep_bodies)
            await connection.execute(QUERIES["set_retention"], *values)

    async def expire_messages(
        self, tenant_id: UUID, before: datetime, *, after: UUID | None = None, limit: int = 500
    ) -> tuple[int, UUID | None]:
        """Delete a tenant's settled mail accepted before then, oldest first, among the next `limit` after `after`.

        Returns how many messages went, and with which id to go on; None: that was all.
        """
        async with self._connection("deleting old mail") as connection, connection.transaction():
            rows = await connection.fetch(QUERIES["old_messages"], tenant_id, first_id(before), after, limit)
            settled = await _lock_settled(connection, {row["id"]: row["recipient_count"] for row in rows})
            gone = await _without_events(connection, settled, self._told_since())
            if gone:
                await connection.execute(QUERIES["delete_messages"], gone, min(gone), max(gone))
        return len(gone), rows[-1]["id"] if len(rows) == limit else None

    async def forget_contents(
        self, tenant_id: UUID, since: datetime, *, after: UUID | None = None, limit: int = 500
    ) -> Forgotten:
        """Take the content out of a tenant's settled mail accepted since then, oldest first, among the next `limit`.

        `limit` counts messages, with content or without.
        """
        low = max(first_id(since), after) if after is not None else first_id(since)
        async with self._connection("forgetting content") as connection, connection.transaction():
            rows = await connection.fetch(QUERIES["messages_and_contents"], tenant_id, low, limit)
            found = await _forget(connection, rows)
        return replace(found, after=rows[-1]["id"] if len(rows) == limit else None)

    async def forget_contents_of(self, envelope_ids: Sequence[UUID]) -> Forgotten:
        """Take the content out of those of these messages that are settled."""
        ids, low, high = list(envelope_ids), min(envelope_ids), max(envelope_ids)
        async with self._connection("forgetting content") as connection, connection.transaction():
            return await _forget(connection, await connection.fetch(QUERIES["these_and_contents"], ids, low, high))

    async def drop_days(self, before: datetime) -> list[str]:
        """Drop the days that ended before then and in which nothing is open; returns the names of the tables.

        Raises SchemaBusy: others hold the locks; what was dropped before stays dropped, try again later.
        """
        async with self._session("dropping old mail") as connection:
            locks = Locks(connection, try_seconds=self._settings.migrate_lock_seconds, total_seconds=_PATIENCE_SECONDS)
            attached = await _names(connection, attached=True)
            for day in _days(attached, before):
                tables = [parent for parent in _PARENTS if f"{parent}_p{day}" in attached]
                since = self._told_since()
                if not (await _has_events(connection, day, tables, since) or await _has_open(connection, day)):
                    detach = partial(_detach, connection, day, tables, since)
                    await locks.transaction(f"dropping {day}", detach, tables)
            leftovers = sorted(await _names(connection, attached=False))
            for name in leftovers:
                await connection.execute(f"DROP TABLE {name}")
        return leftovers

    def _told_since(self) -> datetime:
        """Events that are older are given up, so nobody waits for them."""
        return self._clock.now() - timedelta(seconds=self._settings.webhook_give_up_seconds)


async def forget_settled(connection: Connection, envelope_ids: Sequence[UUID]) -> None:
    """Take the content out of those of these that are settled by now, of tenants that want no content kept."""
    low, high = min(envelope_ids), max(envelope_ids)
    private = [row["id"] for row in await connection.fetch(QUERIES["lock_private"], list(envelope_ids), low, high)]
    if not private:
        return
    # A statement of its own, so that it sees what whoever held the lock has done.
    rows = await connection.fetch(QUERIES["settled_messages"], private, low, high, _SETTLED)
    if rows:
        await connection.execute(QUERIES["forget_contents"], [row["id"] for row in rows], low, high)


async def _forget(connection: Connection, rows: Sequence[asyncpg.Record]) -> Forgotten:
    with_content = {row["id"]: row["recipient_count"] for row in rows if row["has_content"]}
    gone = await _lock_settled(connection, with_content)
    if gone:
        await connection.execute(QUERIES["forget_contents"], gone, min(gone), max(gone))
    return Forgotten(len(gone), tuple(sorted(set(with_content).difference(gone))))


async def _lock_settled(connection: Connection, recipients: Mapping[UUID, int]) -> list[UUID]:
    """Those messages (with so many recipients each) that are settled, and stay so until the transaction ends."""
    if not recipients:
        return []
    ids = list(recipients)
    rows = await connection.fetch(QUERIES["lock_settled"], ids, min(ids), max(ids), _SETTLED)
    settled = Counter(row["envelope_id"] for row in rows)
    return [envelope_id for envelope_id, count in recipients.items() if settled[envelope_id] == count]


async def _names(connection: Connection, *, attached: bool) -> set[str]:
    """Tables that are named like a partition of ours, and are one, or no longer since we detached them."""
    names = {row["relname"] for row in await connection.fetch(QUERIES["day_tables"], attached, _MARK)}
    return {name for name in names if _PARTITION.match(name)}


def _days(names: set[str], before: datetime) -> list[str]:
    """Days, as in the names of partitions, that ended before then."""
    days = {name.removeprefix("deliveries_p") for name in names if name.startswith("deliveries_p")}
    last = before.astimezone(UTC) - timedelta(days=1)
    return sorted(day for day in days if datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC) <= last)


async def _has_open(connection: Connection, day: str) -> bool:
    """Whether anything of that day may still go out; first what indexes tell, then a look at every row, in batches."""
    table = f"deliveries_p{day}"
    if await connection.fetchval(QUERIES["has_open_by_index"].replace("deliveries", table)):
        return True
    statement, after = QUERIES["some_are_open"].replace("deliveries", table), (UUID(int=0), -1)
    while True:
        row = await connection.fetchrow(statement, *after, _LOOKED_AT)
        if row is None or row["envelope_id"] is None:
            return False
        if row["is_open"]:
            return True
        after = (row["envelope_id"], row["recipient_number"])


async def _without_events(connection: Connection, envelope_ids: list[UUID], since: datetime) -> list[UUID]:
    if not envelope_ids:
        return []
    values = (envelope_ids, min(envelope_ids), max(envelope_ids), since)
    waiting = {row["envelope_id"] for row in await connection.fetch(QUERIES["with_events"], *values)}
    return [envelope_id for envelope_id in envelope_ids if envelope_id not in waiting]


async def _has_events(connection: Connection, day: str, tables: Sequence[str], since: datetime) -> bool:
    if "webhook_events" not in tables:
        return False
    statement = QUERIES["has_events_by_index"].replace("webhook_events", f"webhook_events_p{day}")
    return bool(await connection.fetchval(statement, since))


async def _detach(connection: Connection, day: str, tables: Sequence[str], since: datetime) -> None:
    """Called with all tables locked, so nothing that was settled is opened again meanwhile."""
    if await _has_events(connection, day, tables, since):
        return
    if await connection.fetchval(QUERIES["has_open_by_index"].replace("deliveries", f"deliveries_p{day}")):
        return
    for table in tables:  # names are made from dates alone, so there is nothing to quote
        await connection.execute(f"ALTER TABLE {table} DETACH PARTITION {table}_p{day}")
        await connection.execute(f"COMMENT ON TABLE {table}_p{day} IS '{_MARK}'")
