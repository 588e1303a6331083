"""A next hop that records what it takes, and misbehaves when told to."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import re
from collections.abc import AsyncIterator

from ledger_harness.account import Arrivals, Copy

GOOD = "good"
BEHAVIOURS = (
    "421 at connect",
    "451 at RCPT",
    "451 after the dot",
    "554 after the dot",
    "421 after the dot, and closed",
    "stalls before the dot's answer",
    "takes it and stalls",
    "takes it and drops",
    "takes it and closes in the middle of its reply",
    "drops in DATA",
)
_SHARE = 0.4  # of the transactions that meet the misbehaviour, so that some mail goes on
_DIGEST = re.compile(rb"(?im)^X-Content-SHA256:[ \t]*([0-9a-f]{64})\r$")
_MESSAGE_ID = re.compile(rb"(?im)^Message-ID:[ \t]*(<[^>]+>)")


class _Drop(Exception):
    """Close without a word."""


class Sink:
    """Speaks SMTP with PIPELINING. `behaviour` is GOOD or one of BEHAVIOURS, and may change at any time."""

    def __init__(self, arrivals: Arrivals, chance: random.Random) -> None:
        self.arrivals = arrivals
        self.behaviour = GOOD
        self.port = 0
        self._chance = chance
        self._open: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for writer in list(self._open):
                writer.transport.abort()

    def _does(self, behaviour: str) -> bool:
        return self.behaviour == behaviour and self._chance.random() < _SHARE

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if self._does("421 at connect"):
                writer.write(b"421 4.3.2 not now\r\n")
                await writer.drain()
                return
            writer.write(b"220 sink.example\r\n")
            await self._session(reader, writer)
        except (OSError, asyncio.CancelledError, _Drop):
            pass
        finally:
            self._open.discard(writer)
            with contextlib.suppress(OSError):
                await writer.drain()
            writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recipients: list[str] = []
        by = reverse_path = ""
        while line := await reader.readline():
            verb, _, argument = line.strip().decode("ascii", "replace").partition(" ")
            match verb.upper():
                case "EHLO":
                    by = argument
                    answer = "250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES"
                case "MAIL" | "RSET":
                    recipients, answer = [], "250 2.1.0 ok"
                    reverse_path = _path(argument)
                case "RCPT" if self._does("451 at RCPT"):
                    answer = "451 4.2.1 try again"
                case "RCPT":
                    recipients.append(_path(argument))
                    answer = "250 2.1.5 ok"
                case "DATA" if not recipients:
                    answer = "554 5.5.1 no recipients"
                case "DATA":
                    writer.write(b"354 go on\r\n")
                    content = await self._data(reader)
                    copies = _copies(content, recipients)
                    # To the null reverse-path goes nothing, and from it come reports of our own, which have no digest.
                    if reverse_path and not is_whole(content):
                        for copy in copies:
                            self.arrivals.alter(copy)
                    answer = await self._answer(reader, writer, copies, by)
                case "QUIT":
                    writer.write(b"221 2.0.0 bye\r\n")
                    return
                case _:
                    answer = "250 2.0.0 ok"
            writer.write(f"{answer}\r\n".encode())
            await writer.drain()

    async def _data(self, reader: asyncio.StreamReader) -> bytes:
        """The message, as RFC 5321 4.5.2 has it without the dots that were put in front of dots."""
        if self._does("drops in DATA"):
            await reader.readline()
            raise _Drop
        content = bytearray()
        while (line := await reader.readline()) != b".\r\n":
            if not line:
                raise _Drop
            content += line.removeprefix(b".")
        return bytes(content)

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, copies: list[Copy], by: str
    ) -> str:
        if self._does("451 after the dot"):
            return "451 4.3.0 try again"
        if self._does("554 after the dot"):
            self.arrivals.refused.update(copies)
            return "554 5.6.0 never"
        if self._does("421 after the dot, and closed"):
            writer.write(b"421 4.3.2 going down\r\n")
            raise _Drop
        if self._does("stalls before the dot's answer"):
            await reader.read()
            raise _Drop
        unanswered = next((b for b in BEHAVIOURS if b.startswith("takes it") and self._does(b)), None)
        for copy in copies:
            self.arrivals.take(copy, answered=unanswered is None, by=by)
        if unanswered == "takes it and stalls":
            await reader.read()
            raise _Drop
        if unanswered == "takes it and closes in the middle of its reply":
            writer.write(b"250 2.0.")
            raise _Drop
        if unanswered is not None:
            raise _Drop
        return "250 2.0.0 taken"


def is_whole(content: bytes) -> bool:
    """Is the body the one that its sender put the digest of into the header?"""
    head, _, body = content.partition(b"\r\n\r\n")
    found = _DIGEST.search(head + b"\r\n")
    return found is not None and hashlib.sha256(body).hexdigest().encode() == found[1]


def _copies(content: bytes, recipients: list[str]) -> list[Copy]:
    found = _MESSAGE_ID.search(content.partition(b"\r\n\r\n")[0] + b"\r\n")
    return [(found[1].decode() if found else "", recipient) for recipient in recipients]


def _path(argument: str) -> str:
    return argument.partition("<")[2].partition(">")[0]
