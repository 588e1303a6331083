"""Applications that send at a pace, and write each 250 down."""

from __future__ import annotations

import asyncio
import hashlib
import random

from senders import Refused, Wire

from ledger_harness.account import Ledger

RECIPIENTS_AT = "@rcpt.example"
_PATIENCE_SECONDS = 8.0
_AGAIN_SECONDS = 0.2
# Bytes of a body. One page is where Postgres keeps a message otherwise, and the largest leaves the worker in pieces.
_SIZES = (0, 200, 1_000, 1_000, 1_000, 4_000, 4_000, 20_000)
_LARGE_BYTES = 600_000
_ONE_LARGE_IN = 150
# What a mail system may be tempted to change.
_LINES = (
    b"a line\r\n",
    b".\r\n",
    b"..\r\n",
    b".a dot first\r\n",
    b"\r\n",
    b"From the start of a line\r\n",
    b"spaces at the end  \t\r\n",
    "gr\u00fc\u00dfe, \u65e5\u672c\r\n".encode(),
    bytes(range(0x80, 0x100)) + b"\r\n",
    b"x" * 998 + b"\r\n",
)


class Applications:
    """`connections` of them, together `per_second` messages; each try has a Message-ID and recipients of its own.

    A message that was not answered 250 is sent again as another: so what a lost answer hides is never taken for a
    duplicate of ours, nor counted as acknowledged.
    """

    def __init__(self, port: int, ledger: Ledger, *, connections: int, per_second: float) -> None:
        self.messages = 0  # answered 250
        self.tries = 0
        self._port = port
        self._ledger = ledger
        self._pause_seconds = connections / per_second
        self._connections = connections
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._application(n)) for n in range(self._connections)]

    async def stop(self) -> None:
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def _application(self, number: int) -> None:
        wire: Wire | None = None
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    wire = wire or await Wire.open("127.0.0.1", self._port)
                    await self._send(wire, number)
                pause = self._pause_seconds
            except (OSError, EOFError, Refused, TimeoutError):
                if wire is not None:
                    await wire.close()
                wire, pause = None, _AGAIN_SECONDS
            await asyncio.sleep(pause)
        if wire is not None:
            await wire.close()

    async def _send(self, wire: Wire, number: int) -> None:
        self.tries += 1
        this = self.tries
        message_id = f"<t{this}@ledger.example>"
        recipients = [f"r{this}.{n}{RECIPIENTS_AT}" for n in range(1 + (this % 10 == 0))]
        commands = [
            f"MAIL FROM:<sender{number}@test.example> BODY=8BITMIME",
            *(f"RCPT TO:<{to}>" for to in recipients),
            "DATA",
        ]
        wire.writer.write("".join(f"{command}\r\n" for command in commands).encode())
        for _ in commands[:-1]:
            await wire.expect(250)
        await wire.expect(354)
        lane = "Precedence: bulk\r\n" if this % 4 == 0 else ""
        body = body_of(this)
        head = (
            f"Message-ID: {message_id}\r\nFrom: sender{number}@test.example\r\n{lane}Subject: message {this}\r\n"
            f"X-Content-SHA256: {hashlib.sha256(body).hexdigest()}\r\n\r\n"
        )
        wire.writer.write(head.encode() + stuffed(body) + b".\r\n")
        await wire.writer.drain()
        self._ledger.acknowledge(message_id, recipients, await wire.expect(250))
        self.messages += 1


def body_of(number: int) -> bytes:
    """The same for the same number; others differ in size and in every line."""
    chance = random.Random(number)
    size = _LARGE_BYTES if number % _ONE_LARGE_IN == 0 else chance.choice(_SIZES)
    lines: list[bytes] = []
    length = 0
    while length < size:
        lines.append(chance.choice(_LINES))
        length += len(lines[-1])
    return b"".join(lines)


def stuffed(body: bytes) -> bytes:
    """RFC 5321 4.5.2."""
    return (b"\r\n" + body).replace(b"\r\n.", b"\r\n..")[2:]
