"""Services as processes, as in a task of ECS: logins from Secrets Manager alone, task protection, metrics, health.

REQ-INFRA-ECS-010, REQ-INFRA-SCALE-010.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from certificates import Authority
from ecs_agent import OFF, ON, EcsAgent
from fix_moto import Vault
from fix_postgres import free_port
from fix_valkey import ValkeyServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]


class Task:
    """One service in a process of its own, whose environment is all that it is told."""

    def __init__(self, service: str, environ: dict[str, str]) -> None:
        self.service = service
        self.environ = environ
        self.lines: list[dict[str, Any]] = []
        self.text = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Until the block ends, and well by then; afterwards `lines` are its log."""
        process = await self._start("serve", self.service)
        told = asyncio.create_task(process.communicate())
        try:
            await until(lambda: told.done() or self.environ.get("well") == "yes", probe=self._probe)
            assert not told.done(), (await told)[1].decode()
            yield
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            self.text = (await told)[1].decode()
        assert process.returncode == 0, self.text
        self.lines = [json.loads(line) for line in self.text.splitlines()]

    async def _probe(self) -> None:
        asking = await self._start("healthcheck", self.service)
        await asking.communicate()
        if asking.returncode == 0:
            self.environ["well"] = "yes"

    async def _start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "smtp_proxy", *arguments, env=self.environ, stdout=-1, stderr=-1
        )

    def metrics(self) -> dict[str, Any]:
        """The last line in the Embedded Metric Format."""
        return [line for line in self.lines if "_aws" in line][-1]


async def until(condition: Callable[[], bool], *, probe: Callable[[], Any] | None = None, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            if probe is not None:
                await probe()
            await asyncio.sleep(0.05)


@pytest.fixture
def environ(
    vault: Vault, login: dict[str, Any], valkey: ValkeyServer, ecs: EcsAgent, authority: Authority
) -> dict[str, str]:
    names = ("PATH", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED", "AWS_ENDPOINT_URL")
    file = authority.issue("localhost", days=40)
    return {
        **{name: os.environ[name] for name in names},
        "DB_SECRET": vault.create(json.dumps(login)),
        "DB_SSLMODE": "disable",
        "REDIS_URL": valkey.url,
        "TLS_CERT_FILE": str(file),
        "TLS_KEY_FILE": str(file),
        "SMTP_STARTTLS_PORT": str(free_port()),
        "SMTP_TLS_PORT": str(free_port()),
        "HEALTH_PORT": str(free_port()),
        "ECS_AGENT_URI": ecs.uri,
        "METRICS_EMF": "on",
        "LOG_LEVEL": "warning",
    }


async def test_the_smtp_service(environ: dict[str, str], login: dict[str, Any], ecs: EcsAgent) -> None:
    assert login["password"] not in " ".join(environ.values())
    task = Task("smtp", {**environ, "METRICS_SERVICE": "submission"})
    async with task.running():
        assert ecs.states == []  # nobody is there
        _, writer = await asyncio.open_connection("127.0.0.1", int(environ["SMTP_STARTTLS_PORT"]))
        await until(lambda: ecs.states == [ON], seconds=5)
        writer.close()
    assert ecs.states == [ON, OFF]
    told = task.metrics()
    assert (told["Service"], told["AcceptedConnections"], told["TaskProtected"]) == ("submission", 1, 1)
    assert told["CertificateDaysLeft"] == pytest.approx(40, abs=1)
    assert told["SecretReadFailures"] == 0
    assert login["password"] not in task.text


async def test_the_worker(environ: dict[str, str], login: dict[str, Any], ecs: EcsAgent) -> None:
    task = Task("worker", environ)
    async with task.running():
        pass
    told = task.metrics()
    assert {"BacklogAge", "WorkerBusyShare", "QueueDepth", "AttemptsMade", "BreakersOpen"} <= told.keys()
    assert (told["Service"], told["MessagesDelivered"], told["SecretReadFailures"]) == ("worker", 0, 0)
    assert ecs.states == []
    assert login["password"] not in task.text
