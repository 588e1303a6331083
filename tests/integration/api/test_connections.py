"""Who connects and asks nothing, and how the server leaves: the HTTP server over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from smtp_proxy.api import http
from smtp_proxy.api.observed import Observed
from smtp_proxy.api.serve import Shared
from smtp_proxy.errors import ConfigurationError
from smtp_proxy.telemetry.lifecycle import Lifecycle

pytestmark = [pytest.mark.integration, pytest.mark.timeout(30)]
# More than the system takes of an answer that nobody reads.
MUCH = b"x" * 16_000_000
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Site:
    """A server of one answer, which comes once `go_on` is set."""

    def __init__(self, seconds: float) -> None:
        self.lifecycle = Lifecycle(seconds)
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.asked = 0
        self.body = b""
        self.listener = http.bind("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.server = http.HttpServer(Observed(self.answer))  # type: ignore[arg-type]
        self.running = asyncio.create_task(self.server.run_until_stopped(self.listener, self.lifecycle))

    async def hang(self, sent: bytes = GET) -> socket.socket:
        """Ask, and read nothing; until the answer does not go on."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", self.port))
        await loop.sock_sendall(client, sent)
        await until(lambda: self._is_stuck(client.getsockname()))
        return client

    def _is_stuck(self, name: tuple[str, int]) -> bool:
        connections: list[Any] = list(self.server.server_state.connections)
        return any(c.client == name and c.transport.get_write_buffer_size() > 0 for c in connections)

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        await self.go_on.wait()
        status = 200 if self.body else 204
        headers = [(b"content-length", str(len(self.body)).encode())] if self.body else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})

    async def connect(self, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        return reader, writer

    async def ended(self) -> float:
        """After how many seconds it has left."""
        began = time.monotonic()
        async with asyncio.timeout(10):
            await self.running
        return time.monotonic() - began


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(http, "_LOOK_SECONDS", 0.02)
    made = Site(seconds=5.0)
    await until(lambda: made.server.started)
    yield made
    made.lifecycle.stop("the test is over")
    made.go_on.set()
    with contextlib.suppress(Exception):
        await made.running


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Whether it ends soon without another byte."""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(3):
            return await reader.read() == b""
    return True


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_who_does_not_ask_is_let_go(site: Site, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.3)
    began = time.monotonic()
    reader, writer = await site.connect(sent)
    assert await is_closed(reader)
    assert time.monotonic() - began >= 0.3
    writer.close()
    assert site.asked == 0


async def test_who_has_asked_once_and_is_slow_then_is_let_go_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "KEEP_ALIVE_SECONDS", 0)  # of the watch alone: uvicorn was told before
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.3)
    reader, writer = await site.connect(GET)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    writer.write(b"GET / HTT")
    assert await is_closed(reader)
    writer.close()


async def test_who_asks_again_and_again_stays(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """However seldom it is looked at while a request is under way."""
    monkeypatch.setattr(http, "KEEP_ALIVE_SECONDS", 0)
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.5)
    reader, writer = await site.connect()
    until_then = time.monotonic() + 1.5
    while time.monotonic() < until_then:
        writer.write(GET)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        await asyncio.sleep(0.03)
    assert await is_closed(reader)
    writer.close()


async def test_who_takes_no_answer_is_let_go(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It kept its place for good: what it was sent was never all sent."""
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.3)
    site.body = MUCH
    hung = [await site.hang() for _ in range(3)]
    await until(lambda: not site.server.server_state.connections)
    await until(lambda: not site.server.server_state.tasks)
    for each in hung:
        each.close()


async def test_who_takes_no_answer_holds_nobody_up_at_the_end(site: Site) -> None:
    site.body = MUCH
    hung = await site.hang(GET * 3)
    site.lifecycle._signalled("SIGTERM")
    await asyncio.sleep(0.3)
    assert not site.running.done()
    site.lifecycle._signalled("SIGTERM")
    assert await site.ended() < 8
    assert not site.server.server_state.tasks
    hung.close()


async def test_what_is_no_http_after_its_answer_ends_in_no_traceback(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await site.connect(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    writer.write(b"no size\r\n\r\n")
    assert await is_closed(reader)
    writer.close()
    plain = await site.connect(b"\0\0\r\n\r\n")
    assert (await plain[0].readline()).startswith(b"HTTP/1.1 400")
    plain[1].close()
    assert "Traceback" not in caplog.text


async def test_who_waits_for_its_answer_is_not(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.1)
    site.go_on.clear()
    reader, writer = await site.connect(GET)
    await until(lambda: site.asked)
    await asyncio.sleep(0.4)
    site.go_on.set()
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    writer.close()


async def test_of_too_many_those_go_that_have_asked_nothing_for_longest(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http, "CONNECTIONS_MAX", 3)
    site.go_on.clear()
    asking = await site.connect(GET)
    await until(lambda: site.asked)
    idle = []
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            idle.append(await site.connect())
            await asyncio.sleep(0.1)
    assert [await is_closed(reader) for reader, _ in idle[:3]] == [True] * 3
    assert "too many connections: 1 closed" in caplog.text
    site.go_on.set()
    assert (await asking[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    reader, writer = idle[4]
    writer.write(GET)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    for _, each in (asking, *idle):
        each.close()


async def test_what_was_asked_is_answered_before_it_leaves(site: Site) -> None:
    site.go_on.clear()
    reader, writer = await site.connect(GET)
    await until(lambda: site.asked)
    site.lifecycle.stop("SIGTERM")
    await asyncio.sleep(0.5)
    assert not site.running.done()
    with pytest.raises(ConnectionError):
        await site.connect()
    site.go_on.set()
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    assert await site.ended() < 3
    writer.close()


async def test_a_second_signal_leaves_at_once(site: Site) -> None:
    site.go_on.clear()
    reader, writer = await site.connect(GET)
    await until(lambda: site.asked)
    for _ in range(2):
        site.lifecycle._signalled("SIGTERM")
    assert await site.ended() < 3
    assert (await reader.read()).startswith(b"HTTP/1.1 503")  # it hears that it was cut off
    writer.close()


async def test_at_the_deadline_it_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(seconds=0.5)
    await until(lambda: site.server.started)
    site.go_on.clear()
    reader, writer = await site.connect(GET)
    await until(lambda: site.asked)
    site.lifecycle.stop("SIGTERM")
    assert 0.4 < await site.ended() < 4
    assert (await reader.read()).startswith(b"HTTP/1.1 503")
    writer.close()


async def test_a_port_that_is_taken_is_named(site: Site) -> None:
    with pytest.raises(ConfigurationError, match=f"API_HOST, API_PORT: can not listen on 127.0.0.1:{site.port}"):
        http.bind("127.0.0.1", site.port)


async def test_of_two_that_waited_for_postgres_with_one_port_the_second_is_told() -> None:
    first = http.bind("127.0.0.1", 0)
    port = first.getsockname()[1]
    with contextlib.closing(first), contextlib.closing(http.bind("127.0.0.1", port)) as second:
        first.listen()
        with pytest.raises(ConfigurationError, match=f"can not listen on 127.0.0.1:{port}: Address already in use"):
            await http.HttpServer(Observed(_nothing)).run_until_stopped(second, Lifecycle(1.0))  # type: ignore[arg-type]


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError


async def test_health_is_asked_once_for_all_strangers() -> None:
    target = Counted()
    shared = Shared(target)  # type: ignore[arg-type]
    assert await asyncio.gather(*(shared.status() for _ in range(50))) == [200] * 50
    assert target.asked == 1
    target.status = 503
    async with asyncio.timeout(5):
        while await shared.status() == 200:
            await asyncio.sleep(0.05)
    assert target.asked == 2


class Counted:
    asked = 0
    status = 200

    async def answer(self, method: str, path: str) -> tuple[int, str, bytes]:
        assert (method, path) == ("GET", "/targetz")
        self.asked += 1
        await asyncio.sleep(0.01)
        return self.status, "", b""
