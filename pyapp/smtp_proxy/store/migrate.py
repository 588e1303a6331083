"""Migrations: SQL files applied once each, in order, under an advisory lock.

`NNNN_pre_name.sql` is safe beside the previous release and runs before this one starts; `NNNN_post_name.sql` removes
what only the previous release needed and runs once that is gone. Each file is one transaction. Its checksum is kept,
so that a file changed after the fact is noticed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from smtp_proxy.errors import SchemaMismatch
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from smtp_proxy.store.pool import Connection

_FILE = re.compile(r"^(?P<number>\d{4})_(?P<kind>pre|post)_(?P<name>\w+)\.sql$")
# A migration may rewrite a table; it must not be cut short by the time-out of everyday statements.
_STATEMENT_TIMEOUT = "0"
# … but must not queue behind a long reader while everybody else queues behind it.
_LOCK_TIMEOUT = "30s"


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
    connection: Connection, migrations: Sequence[Migration], kinds: Sequence[str] = ("pre", "post")
) -> list[Migration]:
    """Apply what is missing, of these kinds; returns what was applied. Whoever comes second waits and finds it done.

    The connection must be one of its own: the lock and the time-outs set here last until it is closed.

    Raises:
        SchemaMismatch: an applied migration is not the one in this release.
    """
    await connection.execute(f"SET statement_timeout = '{_STATEMENT_TIMEOUT}'")
    await connection.execute(QUERIES["lock_migrations"], timeout=600)
    await connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
    await connection.execute(QUERIES["create_migrations_table"])
    applied = await _applied(connection)
    _refuse_changed(migrations, applied)
    missing = [m for m in migrations if m.number not in applied and m.kind in kinds]
    for migration in missing:
        async with connection.transaction():
            await connection.execute(migration.sql, timeout=3600)
            await connection.execute(
                QUERIES["add_migration"], migration.number, migration.kind, migration.name, migration.checksum
            )
    return missing


async def check_schema(connection: Connection, migrations: Sequence[Migration]) -> None:
    """Check that this release can work with the schema.

    Raises:
        SchemaMismatch: says what is missing, changed or too new, and what to do.
    """
    applied = await _applied(connection) if await connection.fetchval(QUERIES["has_migrations_table"]) else {}
    missing = [m.label for m in migrations if m.kind == "pre" and m.number not in applied]
    if missing:
        raise SchemaMismatch(f"the database lacks {', '.join(missing)}; run `smtp-proxy migrate`")
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
    changed = [m.label for m in migrations if m.number in applied and applied[m.number].checksum != m.checksum]
    if changed:
        raise SchemaMismatch(
            f"{', '.join(changed)} was changed after it was applied here; restore it and put the change in a new file"
        )
