"""Migrations: SQL files applied once each, in order, under an advisory lock.

`NNNN_pre_name.sql` is safe beside the previous release and runs before this one starts; `NNNN_post_name.sql` removes
what only the previous release needed and runs once that is gone. Each file is one transaction, in which locks are
waited for in short tries (`locks`). Its checksum is kept, so that a file changed after the fact is noticed.

Lines of comment with a meaning, for what one transaction can not do beside running mail:
`-- locks: TABLE, …`: tables that are all locked (access exclusive) before the first statement; for more than one.
`-- online index: NAME ON TABLE (…) WHERE …`: built before the transaction, partition by partition (`indexes`).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from smtp_proxy.errors import SchemaBusy, SchemaMismatch, SchemaMissing
from smtp_proxy.store import indexes
from smtp_proxy.store.locks import Locks
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from smtp_proxy.store.pool import Connection

_FILE = re.compile(r"^(?P<number>\d{4})_(?P<kind>pre|post)_(?P<name>\w+)\.sql$")
_LOCKS = re.compile(r"^-- locks: (?P<tables>\w+(?:, \w+)*)$", re.MULTILINE)
# A migration may rewrite a table; it must not be cut short by the time-out of everyday statements.
_STATEMENT_TIMEOUT = "0"
_LOCK_NAME: Final = "smtp_proxy_migrations"
_LOCK_AGAIN_SECONDS: Final = 0.2
# Checksums of earlier texts that did the same to the schema: what was applied in their words is not applied again, and
# what is applied in ours is kept under theirs, so that a release that knows only those can be gone back to.
EARLIER_CHECKSUMS: Final = MappingProxyType({
    # It had a loop of its own for its locks, which could lose against autovacuum for ever.
    2: "8c063f38dd09d99e6341d692dfcbec43ba2632724ab9dff60b86eaabe1b85fdf",
    # It commented on deliveries.state, and so waited for deliveries while it held tenants.
    6: "2a670bd777812a781f81a94ab73d3d5177719710a49db8ff5c5ea12764855d0a",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    number: int
    kind: str  # "pre" or "post"
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def locks(self) -> list[str]:
        """Tables to lock before anything is done."""
        match = _LOCKS.search(self.sql)
        return match["tables"].split(", ") if match else []

    @property
    def label(self) -> str:
        return f"{self.number:04}_{self.kind}_{self.name}"


def read_migrations(sources: Mapping[str, str] | None = None) -> list[Migration]:
    """All migrations of this release by number; `sources` (file name to text) in place of our own.

    Raises:
        ValueError: a file name that does not follow the pattern, or a number used twice.
    """
    if sources is None:
        folder = files(__package__).joinpath("migrations")
        sources = {f.name: f.read_text(encoding="utf-8") for f in folder.iterdir() if f.name.endswith(".sql")}
    found: dict[int, Migration] = {}
    for file_name in sorted(sources):
        match = _FILE.match(file_name)
        if match is None:
            raise ValueError(f"{file_name}: a migration is named NNNN_pre_name.sql or NNNN_post_name.sql")
        number = int(match["number"])
        if number in found:
            raise ValueError(f"{file_name}: number {number} is taken by {found[number].label}")
        found[number] = Migration(number, match["kind"], match["name"], sources[file_name])
    return [found[number] for number in sorted(found)]


async def apply_migrations(
    connection: Connection,
    migrations: Sequence[Migration],
    kinds: Sequence[str] = ("pre", "post"),
    *,
    locks: Locks | None = None,
    prepare: Callable[[], Awaitable[None]] | None = None,
) -> list[Migration]:
    """Apply what is missing, of these kinds; returns what was applied. Whoever comes second waits and finds it done.

    The connection must be one of its own: the lock and the time-outs set here last until it is closed. `prepare` is
    called under the lock, before anything is looked at.

    Raises:
        SchemaMismatch: an applied migration is not the one in this release.
        SchemaBusy: others hold what it needs. What was applied before stays; of the one that is named nothing is,
            but for finished parts of its online indexes, which are not built again.
    """
    locks = locks or Locks(connection, try_seconds=2.0, total_seconds=300.0)
    await connection.execute(f"SET statement_timeout = '{_STATEMENT_TIMEOUT}'")
    await _take_turn(connection)
    if prepare is not None:
        await prepare()
    await connection.execute(QUERIES["create_migrations_table"])
    applied = await _applied(connection)
    _refuse_changed(migrations, applied)
    missing = [m for m in migrations if m.number not in applied and m.kind in kinds]
    for migration in missing:
        await _apply(connection, locks, migration)
    return missing


async def _apply(connection: Connection, locks: Locks, migration: Migration) -> None:
    for index in indexes.asked_for(migration.sql):
        await indexes.build(connection, locks, index)

    async def work() -> None:
        await connection.execute(migration.sql, timeout=3600)
        await connection.execute(
            QUERIES["add_migration"],
            migration.number,
            migration.kind,
            migration.name,
            EARLIER_CHECKSUMS.get(migration.number, migration.checksum),
        )

    await locks.transaction(migration.label, work, migration.locks)


async def _take_turn(connection: Connection) -> None:
    """Wait until nobody else migrates. Raises SchemaBusy after ten minutes."""
    # Asked again and again: whoever waited within a statement would hold up the other's indexes, which wait for all
    # statements that are under way, and so for ever.
    deadline = time.monotonic() + 600
    while not await connection.fetchval(QUERIES["try_lead"], _LOCK_NAME):
        if time.monotonic() > deadline:
            raise SchemaBusy("another migration has been running for ten minutes; see pg_stat_activity")
        await asyncio.sleep(_LOCK_AGAIN_SECONDS)


async def check_schema(connection: Connection, migrations: Sequence[Migration]) -> None:
    """Check that this release can work with the schema.

    Raises:
        SchemaMismatch: says what is missing, changed or too new, and what to do (SchemaMissing: all of it is).
    """
    applied = await _applied(connection) if await connection.fetchval(QUERIES["has_migrations_table"]) else {}
    missing = [m.label for m in migrations if m.kind == "pre" and m.number not in applied]
    if missing:
        kind = SchemaMismatch if applied else SchemaMissing
        raise kind(f"the database lacks {', '.join(missing)}; run `smtp-proxy migrate`")
    _refuse_changed(migrations, applied)
    known = {m.number for m in migrations}
    # A newer release's "pre" migrations are made to be safe beside this one; its "post" ones are not.
    newer = [m.label for number, m in applied.items() if m.kind == "post" and number not in known]
    if newer:
        raise SchemaMismatch(f"the database has {', '.join(newer)} of a newer release; start that release instead")


@dataclass(frozen=True, slots=True)
class _Applied:
    kind: str
    label: str
    checksum: str


async def _applied(connection: Connection) -> dict[int, _Applied]:
    return {
        row["number"]: _Applied(row["kind"], f"{row['number']:04}_{row['kind']}_{row['name']}", row["checksum"])
        for row in await connection.fetch(QUERIES["applied_migrations"])
    }


def _refuse_changed(migrations: Sequence[Migration], applied: Mapping[int, _Applied]) -> None:
    changed = [
        m.label
        for m in migrations
        if m.number in applied and applied[m.number].checksum not in (m.checksum, EARLIER_CHECKSUMS.get(m.number))
    ]
    if changed:
        raise SchemaMismatch(
            f"{', '.join(changed)} was changed after it was applied here; restore it and put the change in a new file"
        )
