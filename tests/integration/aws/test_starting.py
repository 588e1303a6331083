"""Services that begin before their key, their database and its schema, as at the first apply of the stack.

ECS gives a service up whose first tasks end three times, so they wait, alive and not ready. REQ-INFRA-ECS-012.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fix_moto import Vault
from fix_postgres import USER, PostgresServer, free_port
from fix_valkey import ValkeyServer

from smtp_proxy.errors import SchemaMismatch, SchemaMissing
from smtp_proxy.sealing import new_key_line
from smtp_proxy.store import Store
from smtp_proxy.store.arrival import connect_when_there
from smtp_proxy.telemetry.lifecycle import Lifecycle

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


async def called(environ: Mapping[str, str], *arguments: str) -> tuple[int | None, str]:
    """Exit code and standard error of a command."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "smtp_proxy", *arguments, env=environ, stdout=-3, stderr=-1
    )
    _, error = await process.communicate()
    return process.returncode, error.decode()


@asynccontextmanager
async def serving(service: str, environ: Mapping[str, str], log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "smtp_proxy", "serve", service, env=environ, stdout=file, stderr=file
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.1)


@pytest.fixture
def environ(vault: Vault, guarded: PostgresServer, valkey: ValkeyServer, tmp_path: Path) -> dict[str, str]:
    names = ("PATH", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED", "AWS_ENDPOINT_URL")
    return {
        **{name: os.environ[name] for name in names},
        "SECRET_KEY_SECRET": vault.create_empty(),
        "DB_HOST": "127.0.0.1",
        "DB_PORT": str(guarded.port),
        "DB_USER": USER,
        "DB_SSLMODE": "disable",
        "REDIS_URL": valkey.url,
        "SMTP_STARTTLS_PORT": str(free_port()),
        "SMTP_TLS_PORT": str(free_port()),
        "ACME_HTTP_PORT": str(free_port()),
        "API_PORT": str(free_port()),
        "HEALTH_PORT": str(free_port()),
        "TLS_CERT_SOURCE": "store",
        "SMTP_PROXY_DATA_DIR": str(tmp_path),
    }


@pytest.mark.parametrize("service", ["smtp", "worker", "certs", "api"])
async def test_a_service_waits_alive(
    service: str, environ: dict[str, str], vault: Vault, guarded: PostgresServer, tmp_path: Path
) -> None:
    name, log = f"first_{service}", tmp_path / "log"
    said = {**environ, "START_WAITS": "true", "DB_NAME": name, "TLS_CERT_DIR": str(tmp_path)}
    async with serving(service, said, log) as process:

        async def waits_for(what: str) -> None:
            await until(lambda: what in log.read_text())
            assert (await called(said, "healthcheck", "--alive", service))[0] == 0
            code, error = await called(said, "healthcheck", service)
            assert code == 1
            assert "the log says what is waited for" in error
            assert process.returncode is None, log.read_text()

        if service != "api":  # it seals nothing
            await waits_for("waiting for the keys that seal")
        vault.put(said["SECRET_KEY_SECRET"], new_key_line())
        await waits_for(f'database "{name}" does not exist'.replace('"', '\\"'))
        await guarded.sql(f"CREATE DATABASE {name}")
        await waits_for("run `smtp-proxy migrate`")
        await Store.migrate(guarded.settings(name))
        if service == "smtp":
            await waits_for("waiting for the first certificate")
            return
        async with asyncio.timeout(30):
            while (await called(said, "healthcheck", service))[0] != 0:
                await asyncio.sleep(0.2)


async def test_without_being_told_to_wait_it_ends(environ: dict[str, str]) -> None:
    """On a laptop, say: who started it reads the error, and acts."""
    code, error = await called(environ, "serve", "certs")
    assert code == 2
    assert "there is no such secret, or it has no value" in error


async def test_a_schema_of_another_release_is_not_waited_for(guarded: PostgresServer) -> None:
    """A deployment of it is to fail, and not to wait as one that went well."""
    settings = guarded.settings(await guarded.new_database(migrated=False), start_waits=True)
    await Store.migrate(settings)
    await guarded.sql(
        "DELETE FROM schema_migrations WHERE number = (SELECT max(number) FROM schema_migrations WHERE kind = 'pre')",
        database=settings.db_name,
    )
    with pytest.raises(SchemaMismatch, match="the database lacks") as caught:
        await connect_when_there(settings, "test", Lifecycle(1.0), accepts=False)
    assert not isinstance(caught.value, SchemaMissing)
