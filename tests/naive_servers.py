"""Next hops with other people's bugs: they keep every byte, and end a message where a careful server would not.

A `NaiveServer` reads as its `Reading` says: it first changes the bytes as such servers do (drops NULs, takes several
CRs for one), then ends a message at the first of its `ends`. Commands it takes with any line end. With `STRICT`, the
one that is right, it is the recording server.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

GREETING: Final = b"220 naive\r\n"
EHLO: Final = b"250-naive\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 30000000\r\n"


@dataclass(frozen=True)
class Reading:
    """How a server reads. `ends`: a pattern; the message is what is before it."""

    name: str
    ends: bytes
    dropped: bytes = b""  # a pattern of what it does not see
    line_end: bytes = rb"\r\n|\n|\r(?!$)"  # of commands


STRICT = Reading("CRLF . CRLF", rb"(?:^|\r\n)\.\r\n")
# What was taken for the end of data, and by whom it was found: see tests/vectors/smuggling.
NAIVE: tuple[Reading, ...] = (
    Reading("LF . LF", rb"(?:^|\n)\.\n|\r\n\.\r\n"),
    Reading("LF . CRLF", rb"(?:^|\n)\.\r\n"),
    Reading("CRLF . LF", rb"(?:^|\r\n)\.\r?\n"),
    Reading("CR . CR", rb"(?:^|\r)\.\r|\r\n\.\r\n"),
    Reading("CR . CRLF", rb"(?:^|\r)\.\r\n|\r\n\.\r\n"),
    Reading("CRLF . CR", rb"(?:^|\r\n)\.\r"),
    Reading("LF . CR", rb"(?:^|\n)\.\r"),
    Reading("any line end", rb"(?:^|[\r\n])\.[\r\n]"),
    Reading("NUL is dropped", rb"(?:^|\r\n)\.\r\n", dropped=rb"\0"),
    Reading("NUL is dropped, LF is enough", rb"(?:^|\n)\.\r?\n", dropped=rb"\0"),
    Reading("CR is dropped", rb"(?:^|\n)\.\n", dropped=rb"\r"),
    Reading("several CR are one", rb"(?:^|\r\n)\.\r\n", dropped=rb"\r(?=\r)"),
    Reading("blanks at the end are dropped", rb"(?:^|\r\n)\.[ \t]*\r\n"),
)


@dataclass
class NaiveServer:
    """`wires` holds what each connection sent, `messages` what it took for messages."""

    reading: Reading = STRICT
    port: int = 0
    wires: list[bytearray] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    open: int = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[NaiveServer]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            while self.open:
                await asyncio.sleep(0.005)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = bytearray()
        self.wires.append(wire)
        session = _Session(self.reading, self.messages)
        self.open += 1
        writer.write(GREETING)
        try:
            while not session.over and (data := await reader.read(65_536)):
                wire += data
                writer.write(session.receive(data))
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self.open -= 1


class _Session:
    def __init__(self, reading: Reading, messages: list[bytes]) -> None:
        self._reading = reading
        self._messages = messages
        self._buffer = b""
        self._in_text = False
        self.over = False

    def receive(self, data: bytes) -> bytes:
        """Take bytes; the replies to them."""
        dropped = self._reading.dropped
        self._buffer += data
        if dropped and not self._buffer.endswith(b"\r"):
            self._buffer = re.sub(dropped, b"", self._buffer)
        replies = b""
        while (reply := self._text() if self._in_text else self._command()) and not self.over:
            replies += reply
        return replies + (reply or b"")

    def _text(self) -> bytes | None:
        found = re.search(self._reading.ends, self._buffer)
        if found is None:
            return None
        self._messages.append(self._buffer[: found.start()])
        self._buffer = self._buffer[found.end() :]
        self._in_text = False
        return b"250 2.0.0 taken\r\n"

    def _command(self) -> bytes | None:
        line, found, rest = _partition(self._reading.line_end, self._buffer)
        if not found:
            return None
        self._buffer = rest
        match line.upper().split(b" ")[0]:
            case b"EHLO":
                return EHLO
            case b"DATA":
                self._in_text = True
                return b"354 go on\r\n"
            case b"QUIT":
                self.over = True
                return b"221 2.0.0 bye\r\n"
            case b"MAIL" | b"RCPT" | b"RSET":
                return b"250 2.0.0 ok\r\n"
            case _:
                return b"500 5.5.1 what?\r\n"


def _partition(pattern: bytes, text: bytes) -> tuple[bytes, bool, bytes]:
    found = re.search(pattern, text)
    return (text[: found.start()], True, text[found.end() :]) if found else (text, False, b"")


def texts(wire: bytes) -> list[bytes]:
    """What lies between DATA and its one end of data, strictly read, each with the final dot."""
    found = []
    rest = wire
    while True:
        _, data, rest = rest.partition(b"DATA\r\n")
        if not data:
            return found
        end = re.search(STRICT.ends, rest)
        assert end, "a text without end of data"
        found.append(rest[: end.end()])
        rest = rest[end.end() :]


def check_wire(wire: bytes) -> None:
    """Nothing that anybody could read differently: CRLF alone, no NUL, and each dot at a line's begin is doubled."""
    assert re.search(rb"\r(?!\n)|(?<!\r)\n|\0", wire) is None, "a bare CR or LF, or NUL"
    assert wire.endswith(b"\r\n")
    for text in texts(wire):
        lines = text.split(b"\r\n")
        assert lines[-2:] == [b".", b""]
        assert all(line.startswith(b"..") for line in lines[:-2] if line.startswith(b"."))
