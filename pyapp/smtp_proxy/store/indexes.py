"""An index for a partitioned table, built while mail flows.

`CREATE INDEX` on the table would stop all writing until the last partition is read, and `CONCURRENTLY` is not for
partitioned tables. So: the parent's index first, without its partitions (from then on a partition that is attached
gets its own), then each partition's concurrently, and each is attached. Begun anew after a failure, it goes on where
it stopped.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from smtp_proxy.store.locks import Locks
    from smtp_proxy.store.pool import Connection

_LINE = re.compile(r"^-- online index: (?P<name>\w+) ON (?P<table>\w+) (?P<columns>\(.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class OnlineIndex:
    """As a migration asks for it: `-- online index: NAME ON TABLE (COLUMN, …) WHERE …`."""

    name: str
    table: str
    columns: str  # and what follows them

    def of_partition(self, partition: str) -> str:
        """Such as deliveries_p20261125_held."""
        return f"{partition}_{self.name.removeprefix(self.table + '_')}"


def asked_for(sql: str) -> list[OnlineIndex]:
    """Those that a migration asks for, in order."""
    return [OnlineIndex(match["name"], match["table"], match["columns"]) for match in _LINE.finditer(sql)]


async def build(connection: Connection, locks: Locks, index: OnlineIndex) -> None:
    """Build what is missing of it. Raises SchemaBusy."""
    what = f"index {index.name}"
    parent = f"CREATE INDEX IF NOT EXISTS {index.name} ON ONLY {index.table} {index.columns}"
    await locks.transaction(what, lambda: connection.execute(parent))
    for row in await connection.fetch(QUERIES["partitions_without_index"], index.table, index.name):
        child = index.of_partition(row["relname"])
        if not await connection.fetchval(QUERIES["has_valid_index"], child):
            await _build_one(connection, locks, index, row["relname"])
        attach = f"ALTER INDEX {index.name} ATTACH PARTITION {child}"
        await locks.transaction(what, lambda attach=attach: connection.execute(attach))  # type: ignore[misc]


async def _build_one(connection: Connection, locks: Locks, index: OnlineIndex, partition: str) -> None:
    what, child = f"index {index.name} of {partition}", index.of_partition(partition)
    await locks.patiently(what, f"DROP INDEX CONCURRENTLY IF EXISTS {child}")  # what an earlier try left
    try:
        await locks.patiently(what, f"CREATE INDEX CONCURRENTLY {child} ON {partition} {index.columns}")
    except BaseException:
        # It would be kept up to date and never read.
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await connection.execute("SET lock_timeout = 500")
            await connection.execute(f"DROP INDEX IF EXISTS {child}")
        raise
