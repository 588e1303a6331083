"""Names of endpoints, resolved in threads that nobody can break off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import pytest

from smtp_proxy.worker.webhook_post import Guard

pytestmark = pytest.mark.integration


async def test_a_name_server_that_never_answers_hurts_its_own_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Threads can not be broken off: many tries for one name once kept all of them from every other."""
    never = threading.Event()

    def ask(host: str, port: int, *_: object) -> list[object]:
        if host == "dead.example":
            never.wait(20)
            raise OSError("nobody answers")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))]

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    guard = Guard("")

    async def give_up() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await guard.resolve("dead.example", 443)

    try:
        for _ in range(3):
            await asyncio.gather(*(give_up() for _ in range(40)))
        async with asyncio.timeout(10):
            (found,) = await guard.resolve("good.example", 443)
        assert found["host"] == "93.184.216.34"
    finally:
        never.set()
        await guard.close()
