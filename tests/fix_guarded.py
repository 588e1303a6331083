"""A real Postgres that asks for a password, which can be changed: `from fix_guarded import guarded, login`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fix_postgres import PostgresServer

from smtp_proxy.store import Store


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that asks `app` for its password."""
    server = PostgresServer(tmp_path_factory.mktemp("guarded"))
    server.create()
    (server.data / "pg_hba.conf").write_text(
        "host all smtp_proxy 127.0.0.1/32 trust\nhost all app 127.0.0.1/32 scram-sha-256\n"
    )
    server.start()
    asyncio.run(server.sql("CREATE ROLE app LOGIN SUPERUSER PASSWORD 'first'"))
    asyncio.run(server.sql("CREATE DATABASE mail"))
    asyncio.run(Store.migrate(server.settings("mail")))
    yield server
    server.stop()


@pytest.fixture
async def login(guarded: PostgresServer) -> dict[str, Any]:
    """As the rotation function of RDS writes it."""
    await change_password(guarded, "first")
    return {
        "engine": "postgres",
        "host": "127.0.0.1",
        "port": guarded.port,
        "username": "app",
        "password": "first",
        "dbname": "mail",
    }


async def change_password(server: PostgresServer, password: str) -> None:
    await server.sql(f"ALTER ROLE app PASSWORD '{password}'")
