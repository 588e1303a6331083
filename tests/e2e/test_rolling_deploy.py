"""The first step of a rolling deploy, in the wrong order: a worker of this release before its schema is there.

It does not wait for a schema of another release, since it would pass for one that works (docs/decisions/0046): it ends,
says what to run, and is started again, as an orchestrator does. The worker of before has the mail meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fix_postgres import PostgresServer, postgres, postgres_server
from fix_valkey import ValkeyServer, free_port, valkey, valkey_server
from ledger_harness.account import Arrivals
from ledger_harness.clock import FakeClock
from ledger_harness.sink import Sink
from ledger_harness.world import Service
from mail import BODY, CREDENTIAL, TENANT
from previous_release import previous_release
from stream_suite import envelope_id

from smtp_proxy.config import Settings

__all__ = ["postgres", "postgres_server", "valkey", "valkey_server"]

_MESSAGES = 20
_READY = '"action":"ready"'


def migrate(settings: Settings, *arguments: str, python_path: Path | None = None) -> None:
    environment = {**os.environ, **settings.environment()}
    if python_path is not None:
        environment["PYTHONPATH"] = str(python_path)
    command = [sys.executable, "-P", "-m", "smtp_proxy", "migrate", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


class Deploy:
    """An old worker and a new one on one database, a sink for both, and mail put into the schema of before."""

    def __init__(self, settings: Settings, server: PostgresServer, folder: Path, sink: Sink, old_release: Path) -> None:
        self.arrivals = sink.arrivals
        self.health_port = free_port()
        self.endings: list[int] = []  # exit codes of the new worker
        self._settings = settings
        self._server = server
        self._folder = folder
        hop = {"smarthost_host": "127.0.0.1", "smarthost_port": sink.port, "smarthost_tls": "none"}
        self.old = self._service("old", hop)
        self.old.python_path = str(old_release)
        self.new = self._service("new", {**hop, "start_waits": True, "health_port": self.health_port})

    def _service(self, name: str, more: dict[str, Any]) -> Service:
        quick = {"sweep_interval_seconds": 0.2, "sweep_after_seconds": 1.0, "worker_lease_seconds": 3.0}
        values = {**quick, **more, "hostname": name, "data_dir": self._folder}
        settings = self._settings.model_copy(update=values)
        return Service(name, "worker", settings, self._folder, FakeClock(self._folder, name))

    @contextlib.asynccontextmanager
    async def orchestrated(self) -> AsyncIterator[None]:
        """Both run; the new one is started again whenever it has ended."""
        self.old.start()
        watching = asyncio.create_task(self._start_again())
        try:
            yield
        finally:
            watching.cancel()
            for service in (self.old, self.new):
                await asyncio.to_thread(service.stop)

    async def _start_again(self) -> None:
        while True:
            self.new.start()
            while (code := self.new.exit_code) is None:
                await asyncio.sleep(0.1)
            self.endings.append(code)

    async def accept(self, prefix: str) -> list[str]:
        """With the columns that both schemas have, as the ingress of before."""
        recipients = [f"{prefix}{n}@rcpt.example" for n in range(_MESSAGES)]
        for recipient in recipients:
            number, now = envelope_id(), datetime.now(UTC)
            await self.sql(
                "INSERT INTO envelopes (id, tenant_id, credential_id, reverse_path, recipient_count, size_bytes,"
                " body_type, smtputf8, helo, client_address, tls, received_at, content)"
                " VALUES ($1, $2, $3, 'a@sender.example', 1, $4,"
                " 0, false, 'client.example', '192.0.2.7:5000', true, $5, $6)",
                *(number, TENANT, CREDENTIAL, len(BODY), now, BODY),
            )
            await self.sql(
                "INSERT INTO deliveries (envelope_id, recipient_number, recipient, sweep_at) VALUES ($1, 0, $2, $3)",
                *(number, recipient, now),
            )
        return recipients

    async def sql(self, statement: str, *arguments: Any) -> list[Any]:
        return list(await self._server.sql(statement, *arguments, database=self._settings.db_name))

    def brought(self, recipients: list[str]) -> list[str]:
        """By whom these were delivered, each time."""
        return [a.by for (_, to), taken in self.arrivals.taken.items() if to in recipients for a in taken]

    async def is_ready(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.health_port)
            writer.write(b"GET /readyz HTTP/1.1\r\n\r\n")
            status = await reader.readline()
        except OSError:
            return False
        writer.transport.abort()
        return b" 200 " in status

    async def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{self.old.tail()}\n--- new\n{self.new.tail()}"
            await asyncio.sleep(0.1)


@pytest.mark.timeout(180)
async def test_a_new_worker_on_the_schema_of_before_leaves_the_mail_to_the_old_one(
    tmp_path: Path, postgres: PostgresServer, valkey: ValkeyServer
) -> None:
    name = await postgres.new_database(migrated=False)
    settings = postgres.settings(name, redis_url=valkey.url)
    old_release = previous_release(tmp_path / "before")
    await asyncio.to_thread(migrate, settings, python_path=old_release)
    sink = Sink(Arrivals(), random.Random(1))
    async with sink.running():
        deploy = Deploy(settings, postgres, tmp_path, sink, old_release)
        async with deploy.orchestrated():
            before = await deploy.accept("before")
            await deploy.until(lambda: len(deploy.brought(before)) == _MESSAGES and len(deploy.endings) >= 2)
            assert set(deploy.brought(before)) == {"old"}
            assert set(deploy.endings) == {2}
            assert "the database lacks" in deploy.new.tail()
            assert "run `smtp-proxy migrate`" in deploy.new.tail()
            assert _READY not in deploy.new.tail()
            assert not await deploy.is_ready()

            await asyncio.to_thread(migrate, settings, "--pre-only")
            await deploy.until(lambda: _READY in deploy.new.tail())
            endings = list(deploy.endings)
            await asyncio.to_thread(deploy.old.stop)
            after = await deploy.accept("after")
            await deploy.until(lambda: len(deploy.brought(after)) >= _MESSAGES)
            assert await deploy.is_ready()
            await asyncio.sleep(2)  # for what might come twice
            assert deploy.brought(after) == ["new"] * _MESSAGES
            assert len(deploy.brought(before)) == _MESSAGES
            assert deploy.endings == endings
