"""Partitions of a day each, by UUIDv7 bounds: made ahead of time, dropped by retention.

A partition is made apart and then attached: attaching leaves running inserts alone, where `CREATE TABLE …
PARTITION OF` would wait for all of them and make all new ones wait. Rows that came before their partition lie in
the default one and are moved over in the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from smtp_proxy.store.ids import first_id
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from smtp_proxy.store.pool import Connection

# The partitioned tables with their partition key, in the order in which they are locked.
TABLES = {"envelopes": "id", "deliveries": "envelope_id", "attempts": "envelope_id"}
# A 4 KiB body stays in its row, in one heap write, instead of three chunks of a TOAST table and their index;
# only above this (bytes, a page less its header) does it go out of line. docs/decisions/0011-bodies-inline.md.
_OPTIONS = {"envelopes": " WITH (toast_tuple_target = 8160)"}


def days(now: datetime, days_ahead: int) -> Iterator[datetime]:
    """Midnights UTC from today on, `days_ahead` of them after today's."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight + timedelta(days=n) for n in range(days_ahead + 1))


def partition_name(table: str, day: datetime) -> str:
    """Such as envelopes_p20261125."""
    return f"{table}_p{day:%Y%m%d}"


async def ensure_partitions(connection: Connection, now: datetime, days_ahead: int) -> list[str]:
    """Make what is missing; safe beside running mail and beside another process doing the same. Returns new names."""
    wanted = list(days(now, days_ahead))
    if not await _missing(connection, wanted):
        return []
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '10s'")
        await connection.execute(QUERIES["lock_partitions"])
        missing = await _missing(connection, wanted)
        for table, day in missing:
            await _make(connection, table, day)
    return [partition_name(table, day) for table, day in missing]


async def _missing(connection: Connection, wanted: list[datetime]) -> list[tuple[str, datetime]]:
    existing = {row["relname"] for row in await connection.fetch(QUERIES["partitions"], list(TABLES))}
    return [(table, day) for table in TABLES for day in wanted if partition_name(table, day) not in existing]


async def _make(connection: Connection, table: str, day: datetime) -> None:
    # Names and bounds are made here from a date, so there is nothing to quote.
    name, key = partition_name(table, day), TABLES[table]
    low, high = first_id(day), first_id(day + timedelta(days=1))
    options = _OPTIONS.get(table, "")
    await connection.execute(
        f"""
        CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE){options};
        LOCK TABLE {table}_default IN ACCESS EXCLUSIVE MODE;
        WITH moved AS (DELETE FROM {table}_default WHERE {key} >= '{low}' AND {key} < '{high}' RETURNING *)
            INSERT INTO {name} SELECT * FROM moved;
        ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{low}') TO ('{high}');
        """  # noqa: S608
    )
