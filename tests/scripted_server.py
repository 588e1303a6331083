"""An SMTP server that does what it is told, at any verb: answer anything, hang up, stall, or talk out of turn.

Behaviour is a table from verb to answer. Verbs: GREETING, EHLO, HELO, STARTTLS, AUTH, MAIL, RCPT, DATA, LINE (100 kB
into the message), DOT (its end), RSET, QUIT. An answer is bytes to send, HANG_UP, STALL, or a function of the argument
that returns one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

HANG_UP: Final = b"<hang up>"
STALL: Final = b"<stall>"

Answer = bytes | Callable[[bytes], bytes]
_DEFAULT: dict[str, bytes] = {
    "GREETING": b"220 scripted\r\n",
    "HELO": b"250 scripted\r\n",
    "STARTTLS": b"220 go ahead\r\n",
    "MAIL": b"250 2.1.0 ok\r\n",
    "RCPT": b"250 2.1.5 ok\r\n",
    "DATA": b"354 go on\r\n",
    "DOT": b"250 2.0.0 taken\r\n",
    "RSET": b"250 2.0.0 ok\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
    "AUTH": b"235 2.7.0 welcome\r\n",
}


@dataclass
class Received:
    """One message as it arrived."""

    reverse_path: bytes
    recipients: list[bytes]
    data: bytes  # as it came over the wire, stuffed, without the dot


@dataclass
class ScriptedServer:
    answers: dict[str, Answer] = field(default_factory=dict)
    extensions: tuple[bytes, ...] = (b"PIPELINING", b"8BITMIME", b"SMTPUTF8", b"SIZE 30000000", b"ENHANCEDSTATUSCODES")
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    port: int = 0
    delay_seconds: float = 0.0  # before the answer to a message
    meeting: asyncio.Barrier | None = None  # before it too: all have a message before any of them is answered
    connections: int = 0
    verbs: Counter[str] = field(default_factory=Counter)
    commands: list[bytes] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    ended: list[asyncio.StreamWriter] = field(default_factory=list)
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    sessions: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[ScriptedServer]:
        context = self.tls if self.implicit_tls else None
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context, limit=2**20)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.hang_up_all()
            if self.sessions:
                # uvloop does not tell a session whose transport was aborted while STARTTLS replaced it.
                _, late = await asyncio.wait(self.sessions, timeout=1.0)
                for session in late:
                    session.cancel()
            while self.open:
                await asyncio.sleep(0.005)

    def hang_up_all(self) -> None:
        for writer in self.open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(writer)
        session = _Session(self, reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self.sessions.add(task)
        task.add_done_callback(self.sessions.discard)
        try:
            await session.run()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            pass
        finally:
            session.writer.transport.abort()
            self.open -= {writer, session.writer}


class _HungUp(OSError):
    pass


class _Session:
    def __init__(self, server: ScriptedServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.reverse_path = b""
        self.recipients: list[bytes] = []

    async def run(self) -> None:
        await self._answer("GREETING", b"")
        while line := await self.reader.readline():
            command = line.rstrip(b"\r\n")
            self.server.commands.append(command)
            verb, _, argument = command.partition(b" ")
            await self._command(verb.upper().decode("ascii", "replace"), argument)

    async def _command(self, verb: str, argument: bytes) -> None:
        if verb == "EHLO" and "EHLO" not in self.server.answers:
            lines = [b"scripted", *self.server.extensions]
            raw = b"".join(b"250-%s\r\n" % line for line in lines[:-1]) + b"250 %s\r\n" % lines[-1]
            await self._send(raw)
            return
        answer = await self._answer(verb, argument)
        if verb == "STARTTLS" and answer.startswith(b"220") and self.server.tls is not None:
            await self._start_tls(self.server.tls)
        elif verb == "MAIL":
            self.reverse_path, self.recipients = argument, []
        elif verb == "RCPT" and answer.startswith(b"25"):
            self.recipients.append(argument)
        elif verb == "DATA" and answer.startswith(b"354"):
            await self._data()
        elif verb == "QUIT":
            raise _HungUp

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        """Not StreamWriter.start_tls: in Python 3.11 it leaves a broken writer behind a failed handshake."""
        loop = asyncio.get_running_loop()
        protocol = self.writer.transport.get_protocol()
        transport = await loop.start_tls(self.writer.transport, protocol, context, server_side=True)
        if transport is None:
            raise _HungUp
        self.server.open.discard(self.writer)
        self.writer = asyncio.StreamWriter(transport, protocol, self.reader, loop)
        self.server.open.add(self.writer)

    async def _data(self) -> None:
        data = bytearray()
        while (line := await self.reader.readline()) != b".\r\n":
            if not line:
                raise _HungUp
            data += line
            if "LINE" in self.server.answers and len(data) > 100_000:
                await self._answer("LINE", line)
        await asyncio.sleep(self.server.delay_seconds)
        if self.server.meeting is not None:
            await self.server.meeting.wait()
        answer = await self._answer("DOT", bytes(data))
        if answer.startswith(b"2"):
            self.server.received.append(Received(self.reverse_path, self.recipients, bytes(data)))

    async def _answer(self, verb: str, argument: bytes) -> bytes:
        self.server.verbs[verb] += 1
        answer = self.server.answers.get(verb, _DEFAULT.get(verb, b"500 5.5.1 what?\r\n"))
        raw = answer(argument) if callable(answer) else answer
        await self._send(raw)
        return raw

    async def _send(self, raw: bytes) -> None:
        if raw.endswith(HANG_UP):
            self.writer.write(raw.removesuffix(HANG_UP))
            await self.writer.drain()
            self.writer.close()
            raise _HungUp
        if raw == STALL:
            await self.reader.read(-1)
            raise _HungUp
        self.writer.write(raw)
        await self.writer.drain()
