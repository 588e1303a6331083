"""Rolling deploy: the schema of this release under the statements of the one before, and the other way round."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from fix_postgres import USER, PostgresServer
from previous_release import previous_release

from smtp_proxy.config import Settings
from smtp_proxy.errors import SchemaMismatch
from smtp_proxy.store import Store

pytestmark = pytest.mark.integration

_MARK = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_COPY = re.compile(r"COPY (\w+) \(([^)]*)\)")


@pytest.fixture
def old_statements(tmp_path: Path) -> dict[str, str]:
    text = (previous_release(tmp_path) / "smtp_proxy/store/queries.sql").read_text()
    parts = _MARK.split(text)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


async def test_every_statement_of_before_still_works(db_settings: Settings, old_statements: dict[str, str]) -> None:
    """Old workers and ingresses run on while the first of the new ones has migrated already."""
    connection = await asyncpg.connect(
        host="127.0.0.1", port=db_settings.db_port, user=USER, database=db_settings.db_name, ssl=False
    )
    refused = {}
    try:
        for name, statement in old_statements.items():
            copied = [f"SELECT {columns} FROM {table}" for table, columns in _COPY.findall(statement)]
            for each in copied or [statement]:
                try:
                    await connection.prepare(each)
                except asyncpg.PostgresError as error:
                    refused[name] = str(error)
    finally:
        await connection.close()
    assert refused == {}
    assert len(old_statements) > 50


async def test_what_copies_do_not_name_has_a_default(
    db_settings: Settings, postgres: PostgresServer, old_statements: dict[str, str]
) -> None:
    """A column that the old COPY does not know must fill itself."""
    for statement in old_statements.values():
        for table, columns in _COPY.findall(statement):
            named = {column.strip() for column in columns.split(",")}
            rows = await postgres.sql(
                "SELECT column_name FROM information_schema.columns WHERE table_name = $1"
                " AND is_nullable = 'NO' AND column_default IS NULL",
                table,
                database=db_settings.db_name,
            )
            assert {row["column_name"] for row in rows} <= named, table


async def test_this_release_waits_for_its_schema(postgres: PostgresServer, tmp_path: Path) -> None:
    """A new process on the schema of before says so and does nothing: `smtp-proxy migrate` comes first."""
    settings = postgres.settings(await postgres.new_database(migrated=False))
    environment = {**os.environ, **settings.environment(), "PYTHONPATH": str(previous_release(tmp_path))}
    migrate = [sys.executable, "-P", "-m", "smtp_proxy", "migrate"]
    done = await asyncio.to_thread(subprocess.run, migrate, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    with pytest.raises(SchemaMismatch, match="migrate"):
        await Store.connect(settings, purpose="test")
    await Store.migrate(settings)
    store = await Store.connect(settings, purpose="test")
    await store.close()
