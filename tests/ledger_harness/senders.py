"""Applications that send at a pace, and write each 250 down."""

from __future__ import annotations

import asyncio

from senders import Refused, Wire

from ledger_harness.account import Ledger

_PATIENCE_SECONDS = 8.0
_AGAIN_SECONDS = 0.2


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
        recipients = [f"r{this}.{n}@rcpt.example" for n in range(1 + (this % 10 == 0))]
        commands = [f"MAIL FROM:<sender{number}@test.example>", *(f"RCPT TO:<{to}>" for to in recipients), "DATA"]
        wire.writer.write("".join(f"{command}\r\n" for command in commands).encode())
        for _ in commands[:-1]:
            await wire.expect(250)
        await wire.expect(354)
        lane = "Precedence: bulk\r\n" if this % 4 == 0 else ""
        head = f"Message-ID: {message_id}\r\nFrom: sender{number}@test.example\r\n{lane}Subject: message {this}\r\n\r\n"
        wire.writer.write(head.encode() + b"line\r\n..dot\r\n" * 40 + b".\r\n")
        self._ledger.acknowledge(message_id, recipients, await wire.expect(250))
        self.messages += 1
