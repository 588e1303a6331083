"""Partitions of a day each, by UUIDv7 bounds: made ahead of time, dropped by retention.

A partition is made apart and then attached: attaching leaves running inserts alone, where `CREATE TABLE …
PARTITION OF` would wait for all of them and make all new ones wait. Rows that came before their partition lie in
the default one and are moved over in the same transaction.

Each is a transaction of its own, since it needs the default partition to itself, for which claims wait meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from smtp_proxy.store.ids import first_id
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from smtp_proxy.store.locks import Locks
    from smtp_proxy.store.pool import Connection

# The partitioned tables with their partition key.
TABLES = {
    "envelopes": "id",
    "deliveries": "envelope_id",
    "attempts": "envelope_id",
    "content_parts": "envelope_id",
    "webhook_events": "envelope_id",
}
# A 4 KiB body stays in its row, in one heap write, instead of three chunks of a TOAST table and their index;
# only above this (bytes, a page less its header) does it go out of line. docs/decisions/0011-bodies-inline.md.
# A part of a longer one is made to fill a page (0028).
_OPTIONS = dict.fromkeys(("envelopes", "content_parts"), " WITH (toast_tuple_target = 8160)")


def days(now: datetime, days_ahead: int) -> Iterator[datetime]:
    """Midnights UTC from today on, `days_ahead` of them after today's."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight + timedelta(days=n) for n in range(days_ahead + 1))


def partition_name(table: str, day: datetime) -> str:
    """Such as envelopes_p20261125."""
    return f"{table}_p{day:%Y%m%d}"


async def ensure_partitions(connection: Connection, now: datetime, days_ahead: int, locks: Locks) -> list[str]:
    """Make what is missing; safe beside running mail and beside another process doing the same. Returns new names.

    Raises SchemaBusy: a long statement reads a default partition; those made before it stay.
    """
    wanted = list(days(now, days_ahead))
    made = []
    for table, day in await _missing(connection, wanted):
        name = partition_name(table, day)
        if await locks.transaction(f"partition {name}", partial(_make_if_missing, connection, table, day)):
            made.append(name)
    return made


async def _missing(connection: Connection, wanted: list[datetime]) -> list[tuple[str, datetime]]:
    existing = {row["relname"] for row in await connection.fetch(QUERIES["partitions"], list(TABLES))}
    return [(table, day) for day in wanted for table in TABLES if partition_name(table, day) not in existing]


async def _make_if_missing(connection: Connection, table: str, day: datetime) -> bool:
    await connection.execute(QUERIES["lock_partitions"])
    if (table, day) not in await _missing(connection, [day]):
        return False  # somebody else made it meanwhile
    await _make(connection, table, day)
    return True


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
