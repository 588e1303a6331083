"""Applications that submit mail and do not give up: what e2e tests send with.

Each message is known by its Message-ID. One that was answered 250 is *acknowledged*: from then on it is the server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

_AGAIN_SECONDS = 0.1


class Refused(Exception):
    """An answer that was not the expected one."""


@dataclass
class Senders:
    """Sends `total` messages over several connections, each message until it is acknowledged."""

    port: int
    total: int
    connections: int = 10
    host: str = "127.0.0.1"
    per_second: float | None = None
    on_acknowledged: Callable[[int], None] = lambda _: None
    acknowledged: dict[str, str] = field(default_factory=dict)  # Message-ID to the reply
    attempts: int = 0
    interrupted: int = 0  # transactions that broke off or were refused for now

    async def run(self, timeout_seconds: float = 90) -> None:
        waiting = list(range(self.total))[::-1]
        async with asyncio.timeout(timeout_seconds):
            await asyncio.gather(*(self._sender(number, waiting) for number in range(self.connections)))

    async def _sender(self, sender: int, waiting: list[int]) -> None:
        """An application: one connection, reopened whenever it breaks."""
        wire: Wire | None = None
        while waiting:
            message = waiting.pop()
            while True:
                self.attempts += 1
                try:
                    wire = wire or await Wire.open(self.host, self.port)
                    await self._send(wire, sender, message)
                    break
                except (OSError, EOFError, Refused):
                    self.interrupted += 1
                    if wire is not None:
                        await wire.close()
                    wire = None
                    await asyncio.sleep(_AGAIN_SECONDS)
            if self.per_second is not None:
                await asyncio.sleep(self.connections / self.per_second)
        if wire is not None:
            await wire.close()

    async def _send(self, wire: Wire, sender: int, message: int) -> None:
        message_id = f"<m{message}@test.example>"
        reply = await wire.transaction(
            f"sender{sender}@test.example",
            f"rcpt{message % 7}@test.example",
            f"Message-ID: {message_id}\r\nSubject: message {message}\r\n\r\n".encode() + b"line\r\n..dot\r\n" * 20,
        )
        self.acknowledged[message_id] = reply
        self.on_acknowledged(len(self.acknowledged))


class Wire:
    """One SMTP connection, as little as it takes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, host: str, port: int, tls: ssl.SSLContext | None = None) -> Wire:
        wire = cls(*await asyncio.open_connection(host, port, ssl=tls, server_hostname="localhost" if tls else None))
        try:
            await wire.expect(220)
            await wire.command(250, "EHLO client.example")
        except BaseException:
            await wire.close()
            raise
        return wire

    async def transaction(self, sender: str, recipient: str, content: bytes) -> str:
        """Send one message with pipelining; returns the reply to its final dot."""
        self.writer.write(f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
        for code in (250, 250, 354):
            await self.expect(code)
        self.writer.write(content + b".\r\n")
        return await self.expect(250)

    async def command(self, code: int, line: str) -> str:
        self.writer.write(f"{line}\r\n".encode())
        return await self.expect(code)

    async def expect(self, code: int) -> str:
        """Read a reply. Raises Refused when its code is another, EOFError at the end."""
        reply = await self.reply()
        if not reply.startswith(str(code)):
            raise Refused(reply)
        return reply

    async def reply(self) -> str:
        lines: list[str] = []
        while not lines or lines[-1][3:4] == "-":
            line = await self.reader.readline()
            if not line.endswith(b"\n"):
                raise EOFError("the server closed the connection")
            lines.append(line.decode().rstrip("\r\n"))
        return "\n".join(lines)

    async def close(self) -> None:
        await closed(self.writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close for sure, whatever the other side does."""
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
