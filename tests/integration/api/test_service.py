"""`smtp-proxy serve api` as a process of its own, on a real Postgres, asked over real HTTP."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from fix_postgres import free_port

if TYPE_CHECKING:
    from fix_postgres import PostgresServer

    from smtp_proxy.config import Settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]
SUPPRESSIONS = "/api/v1/suppressions"


@dataclass
class Service:
    """One process, and a command line beside it."""

    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['API_PORT']}"

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "smtp_proxy", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)

    def key(self, name: str, *scopes: str) -> str:
        options = [part for scope in scopes for part in ("--scope", scope)]
        done = self.command("api-key", "create", "acme", name, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    async def until(self, condition: Callable[[], Any], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not await condition():
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            await asyncio.sleep(0.05)

    async def health(self) -> int:
        """Of GET /health; 0: nobody listens."""
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.url}/health") as answer:
                return answer.status
        except aiohttp.ClientError:
            return 0


@pytest.fixture
def service(request: pytest.FixtureRequest, tmp_path: Path, db_settings: Settings) -> Iterator[Service]:
    """With more settings, as a test says by its parameter."""
    environment = {
        **os.environ,
        **db_settings.environment(),
        "API_PORT": str(free_port()),
        "HEALTH_PORT": str(free_port()),
        "LOG_LEVEL": "debug",
        **getattr(request, "param", {}),
        "NO_COLOR": "1",
    }
    log = tmp_path / "log"
    with log.open("wb") as out:
        command = [sys.executable, "-P", "-m", "smtp_proxy", "serve", "api"]
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    yield Service(environment, log, process)
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


async def is_up(service: Service) -> bool:
    return await service.health() == 200


async def test_from_a_key_to_its_end(service: Service) -> None:
    await service.until(lambda: is_up(service))
    assert service.command("healthcheck", "api").returncode == 0
    assert service.command("tenant", "create", "acme").returncode == 0
    none = service.command("api-key", "create", "acme", "crm")
    assert (none.returncode, "--scope" in none.stderr) == (2, True)
    key = service.key("crm", "suppressions:read", "suppressions:write")
    twice = service.command("api-key", "create", "acme", "crm", "--scope", "messages:read")
    assert (twice.returncode, "exists already" in twice.stderr) == (1, True)

    async with aiohttp.ClientSession(service.url, headers={"Authorization": f"Bearer {key}"}) as session:
        async with session.put(f"{SUPPRESSIONS}/You@Example.net", json={"reason": "asked us to"}) as answer:
            assert (answer.status, (await answer.json())["address"]) == (201, "you@example.net")
            assert "server" not in answer.headers
        async with session.get("/api/v1/messages") as answer:
            assert (answer.status, answer.content_type) == (403, "application/problem+json")
        shown = service.command("suppressions", "list", "acme", "--json").stdout
        assert '"you@example.net"' in shown

        listed = service.command("api-key", "list", "--tenant", "acme", "--json")
        assert '"suppressions:read"' in listed.stdout
        assert '"last_used_at": null' not in listed.stdout
        assert key not in listed.stdout
        assert service.command("api-key", "revoke", "acme", "crm").returncode == 0
        async with session.get(SUPPRESSIONS) as answer:
            assert answer.status == 401
    again = service.command("api-key", "revoke", "acme", "crm")
    assert (again.returncode, "no API key crm of tenant acme that is not revoked" in again.stderr) == (1, True)
    assert service.key("crm", "messages:read") != key

    service.process.terminate()
    assert await asyncio.to_thread(service.process.wait, 30) == 0
    log = service.log.read_text()
    assert "Traceback" not in log
    assert key not in log
    assert "example.net" not in log.lower()


async def test_while_postgres_is_away_and_after(service: Service, postgres: PostgresServer) -> None:
    await service.until(lambda: is_up(service))
    assert service.command("tenant", "create", "acme").returncode == 0
    key = service.key("crm", "suppressions:read")
    async with aiohttp.ClientSession(service.url, headers={"Authorization": f"Bearer {key}"}) as session:

        async def status() -> int:
            async with session.get(SUPPRESSIONS) as answer:
                return answer.status

        async def is_well() -> bool:
            return await status() == 200

        assert await status() == 200
        postgres.kill()
        assert await status() == 503
        # Who was ready stays in the target group: another task would fare no better (decision 0045).
        assert await service.health() == 200
        assert service.command("healthcheck", "api").returncode == 1
        postgres.start()
        await service.until(is_well)
    assert service.process.poll() is None


# Times for a slow machine: to see it say no, and to wait for a lock meanwhile.
@pytest.mark.parametrize("service", [{"SHUTDOWN_DELAY_SECONDS": "6", "DB_TIMEOUT_SECONDS": "60"}], indirect=True)
async def test_what_was_asked_is_answered_before_it_leaves(service: Service, postgres: PostgresServer) -> None:
    await service.until(lambda: is_up(service))
    assert service.command("tenant", "create", "acme").returncode == 0
    key = service.key("crm", "suppressions:write")
    async with aiohttp.ClientSession(service.url, headers={"Authorization": f"Bearer {key}"}) as session:
        async with postgres.locked("suppressions", database=service.environment["DB_NAME"]):
            asked = asyncio.create_task(session.put(f"{SUPPRESSIONS}/you@example.net"))
            await asyncio.sleep(0.5)
            service.process.terminate()
            # The load balancer sees it, while requests are still taken; then nobody is let in any more.
            await service.until(lambda: _says_no(service))
            assert (await asyncio.to_thread(service.command, "healthcheck", "api")).returncode == 1
            await service.until(lambda: _refuses(service))
            assert not asked.done()
        async with await asked as answer:
            assert answer.status == 201
    assert await asyncio.to_thread(service.process.wait, 30) == 0


async def _says_no(service: Service) -> bool:
    return await service.health() == 503


async def _refuses(service: Service) -> bool:
    return await service.health() == 0


def test_a_port_that_is_taken_is_named(service: Service) -> None:
    listening = {**service.environment, "API_PORT": str(free_port()), "HEALTH_PORT": "0"}
    listening["API_PORT"] = service.environment["HEALTH_PORT"]
    deadline = time.monotonic() + 30
    while True:  # until the first has it
        done = subprocess.run(
            [sys.executable, "-P", "-m", "smtp_proxy", "healthcheck", "api"],
            env=service.environment, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            break
        assert time.monotonic() < deadline, service.log.read_text()
    second = subprocess.run(
        [sys.executable, "-P", "-m", "smtp_proxy", "serve", "api"],
        env=listening, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert second.returncode == 2
    assert f"API_HOST, API_PORT: can not listen on 127.0.0.1:{listening['API_PORT']}" in second.stderr
