"""A real PgBouncer in transaction mode in front of the tests' Postgres; it has few connections, so they change hands.

Import the fixture: `from fix_pgbouncer import pgbouncer`. In CI it must be there; elsewhere its tests are skipped.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fix_postgres import USER, PostgresServer, free_port, unprivileged
from programs import program

from smtp_proxy.config import Settings

SERVER_CONNECTIONS = 3  # of each database; idle ones are closed, since every test has a database of its own
_CONFIGURATION = """\
[databases]
* = host=127.0.0.1 port={postgres_port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 200
server_reset_query =
server_idle_timeout = 1
logfile = {folder}/log
ignore_startup_parameters = {ignored}
"""


class PgBouncer:
    """One process, on a port of its own."""

    def __init__(self, folder: Path, postgres: PostgresServer, *, ignored: str = "") -> None:
        self.port = free_port()
        self._postgres = postgres
        self._file = folder / "pgbouncer.ini"
        self._log = folder / "log"
        self._file.write_text(
            _CONFIGURATION.format(
                postgres_port=postgres.port, user=USER, port=self.port, size=SERVER_CONNECTIONS, folder=folder,
                ignored=ignored,
            )
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [program("pgbouncer", "pgbouncer"), "-q", str(self._file)]
        self._process = subprocess.Popen(unprivileged(command))
        deadline = time.monotonic() + 15
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"pgbouncer did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(15)

    def settings(self, database: str, **overrides: Any) -> Settings:
        """Those of a process that goes through it."""
        return self._postgres.settings(database, **{**self.overrides(), **overrides})

    def overrides(self) -> dict[str, Any]:
        return {"db_port": self.port, "db_pooler": "transaction", "db_direct_port": self._postgres.port}


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PgBouncer]:
    made = PgBouncer(tmp_path_factory.mktemp("pgbouncer"), postgres_server)
    made.start()
    yield made
    made.stop()
