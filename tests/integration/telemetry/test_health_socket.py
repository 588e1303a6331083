"""The health listener on a real socket, and `smtp-proxy healthcheck` against it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import pytest
from fix_postgres import free_port

from smtp_proxy.cli import run
from smtp_proxy.errors import ConfigurationError
from smtp_proxy.telemetry import health
from smtp_proxy.telemetry.health import HealthServer

pytestmark = pytest.mark.integration


async def exchange(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_requests() -> None:
    async with HealthServer("127.0.0.1", 0, {}, service="smtp") as server:
        answer = await exchange(server.port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nok\n")
        assert b"Content-Length: 3\r\n" in answer
        head = await exchange(server.port, b"HEAD /healthz HTTP/1.1\r\n\r\n")
        assert head.endswith(b"\r\n\r\n")
        assert (await exchange(server.port, b"nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert (await exchange(server.port, b"GET /" + b"x" * 20_000 + b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


PROXY = b"\r\n\r\n\x00\r\nQUIT\n"
LOCAL = PROXY + b"\x20\x00\x00\x00"
# What a network load balancer sends: TCP over IPv4, and 84 bytes of addresses and TLVs (kubernetes/kubernetes#57250).
CHECK = PROXY + b"\x20\x11\x00\x54" + bytes([10, 40, 0, 7, 10, 40, 16, 9]) + bytes(76)


@pytest.mark.parametrize("header", [LOCAL, CHECK], ids=["local", "with addresses"])
async def test_a_check_of_a_load_balancer_with_proxy_v2(header: bytes) -> None:
    """Its health checks begin with the header as well, and would be told 400. REQ-INFRA-ECS-012"""
    async with HealthServer("127.0.0.1", 0, {}, service="smtp") as server:
        answer = await exchange(server.port, header + b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\nGET /readyz HTTP/1.1\r\n\r\n",
        LOCAL + LOCAL + b"GET /readyz HTTP/1.1\r\n\r\n",
        PROXY + b"\x20\x11\xff\xff" + b"GET /readyz HTTP/1.1\r\n\r\n",
    ],
    ids=["an empty request before it", "two headers", "a header longer than a request"],
)
async def test_what_only_begins_like_a_proxy_header(request_bytes: bytes) -> None:
    async with HealthServer("127.0.0.1", 0, {}, service="smtp") as server:
        assert (await exchange(server.port, request_bytes)).startswith(b"HTTP/1.1 400 ")


async def test_one_that_hangs_up_early_or_says_nothing_harms_nobody() -> None:
    async with HealthServer("127.0.0.1", 0, {}, service="smtp") as server:
        with socket.create_connection(("127.0.0.1", server.port)) as silent:
            silent.sendall(b"GET /he")
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.close()
            await writer.wait_closed()
            assert b" 200 " in await exchange(server.port, b"GET /healthz HTTP/1.0\r\n\r\n")


async def test_a_port_that_is_taken_is_said_with_the_setting() -> None:
    async with HealthServer("127.0.0.1", 0, {}, service="smtp") as server:
        with pytest.raises(ConfigurationError, match=rf"^HEALTH_HOST, HEALTH_PORT: .* 127\.0\.0\.1:{server.port}: "):
            await HealthServer("127.0.0.1", server.port, {}, service="smtp").start()


async def test_healthcheck(capsys: pytest.CaptureFixture[str]) -> None:
    trouble: str | None = None

    async def check() -> str | None:
        return trouble

    async def asked(port: int) -> int:
        return await asyncio.to_thread(run, ["--set", f"health_port={port}", "healthcheck", "smtp"])

    async with HealthServer("127.0.0.1", 0, {"store": check}, service="smtp") as server:
        port = server.port
        assert await asked(port) == 0
        trouble = "Postgres is away"
        assert await asked(server.port) == 1
        assert "Postgres is away" in capsys.readouterr().err
    assert await asked(port) == 1
    assert "does not answer" in capsys.readouterr().err


async def test_who_is_alive_need_not_be_ready(capsys: pytest.CaptureFixture[str]) -> None:
    """As containers ask: a Postgres that is away is no reason to end every task."""

    async def asked(port: int, *options: str) -> int:
        return await asyncio.to_thread(run, ["--set", f"health_port={port}", "healthcheck", *options, "smtp"])

    async def away() -> str | None:
        return "Postgres is away"

    async with HealthServer("127.0.0.1", 0, {"store": away}, service="smtp") as server:
        port = server.port
        assert await asked(port, "--alive") == 0
        assert capsys.readouterr().out == "smtp: ok\n"
        assert await asked(port) == 1
    assert await asked(port, "--alive") == 1
    assert f"smtp does not answer on 127.0.0.1:{port}" in capsys.readouterr().err


async def test_who_starts_is_alive_and_not_ready() -> None:
    async def ready(port: int) -> bytes:
        return await exchange(port, b"GET /readyz HTTP/1.0\r\n\r\n")

    port = free_port()
    async with health.starting("127.0.0.1", port, service="smtp") as readiness:
        assert b" 200 " in await exchange(port, b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b"the log says what is waited for" in await ready(port)
        with readiness.of({}):
            assert b" 200 " in await ready(port)
        assert b"leaving" in await ready(port)


async def test_healthcheck_of_another_service_is_not_well(capsys: pytest.CaptureFixture[str]) -> None:
    async with HealthServer("127.0.0.1", 0, {}, service="worker") as server:
        port = server.port
        assert await asyncio.to_thread(run, ["--set", f"health_port={port}", "healthcheck", "worker"]) == 0
        assert await asyncio.to_thread(run, ["--set", f"health_port={port}", "healthcheck", "smtp"]) == 1
    assert f"on 127.0.0.1:{port} answers worker, not smtp" in capsys.readouterr().err


@pytest.mark.parametrize("body", [b"ready", b"[]", b'{"ready": true}', b'{"service": 1}'])
async def test_healthcheck_of_something_else_is_not_well(body: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        assert await asyncio.to_thread(run, ["--set", f"health_port={port}", "healthcheck", "smtp"]) == 1
    assert "no service of this release, not smtp" in capsys.readouterr().err


async def test_a_container_that_asks_does_not_load_all_commands() -> None:
    """It asks every few seconds, on a quarter of a core perhaps."""
    program = (
        "import sys\nfrom smtp_proxy.__main__ import main\n"
        "try:\n    main()\nfinally:\n    sys.stderr.write(str('smtp_proxy.cli' in sys.modules))"
    )

    async def asked(service: str, port: int, *options: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, "healthcheck", *options, service, stdout=-1, stderr=-1,
            env={**os.environ, "HEALTH_PORT": str(port)},
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    async with HealthServer("127.0.0.1", 0, {}, service="smtp") as server:
        code, out, err = await asked("smtp", server.port)
        assert (code, err) == (0, "False")
        assert out.startswith('smtp: {"service": "smtp", "ready": true')
        assert await asked("smtp", server.port, "--alive") == (0, "smtp: ok\n", "False")
        code, _, err = await asked("worker", server.port)
        assert code == 1
        assert "answers smtp, not worker" in err
        assert (await asked("smpt", server.port))[0] == 2
    assert (await asked("smtp", 0))[0] == 2
