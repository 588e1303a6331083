"""Connections that only write: a whole batch in one write, and one answer.

asyncpg makes eight round trips of a transaction with three COPYs, and encodes every field of every row on its way. Half
of what accepting a message costs is that (docs/decisions/0021-one-write-per-batch.md). So asyncpg connects, with all it
knows of TLS, passwords and hosts, and then hands its transport over to a protocol that knows just what is needed here:
one simple query of several COPYs (an implicit transaction: all or nothing, committed before ReadyForQuery is sent),
what follows it in the core's encoding, and the answer.

Source: PostgreSQL's manual, "Message Flow" (Simple Query, COPY Operations) and "Message Formats".
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar, Final

import asyncpg

from smtp_proxy.errors import StoreUnavailable
from smtp_proxy.store.faults import translate
from smtp_proxy.store.pool import open_connection

if TYPE_CHECKING:
    from smtp_proxy.config import Settings

_HEAD: Final = struct.Struct("!ci")  # kind, length without the kind
# Bytes. The server sends a word of its own for each COPY that it begins, which nobody waits for: one CopyInResponse for
# 16 columns and one for 6, two CommandComplete and a ReadyForQuery are 90 at least; an error is more. Until so many are
# there the kernel lets us sleep.
_LEAST_ANSWER: Final = 88
# So long at most it does: whatever else the server has to say is heard then.
_DOZE_SECONDS: Final = 0.25


def query_message(statement: str) -> bytes:
    """Write a Query message."""
    text = statement.encode() + b"\0"
    return _HEAD.pack(b"Q", len(text) + 4) + text


def writer_count(settings: Settings) -> int:
    """How many of a process's connections are writers: as many as there are committers, if the pool can spare them."""
    return min(settings.ingress_committers, settings.db_pool_size - 1)


class Writer:
    """One connection, for one batch at a time. Made by `open`."""

    _answers_are_long: ClassVar[bool] = True  # never less than _LEAST_ANSWER bytes

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection  # kept, since closing it is its business
        # asyncpg has no other way to hand it over (0.32).
        self._transport: asyncio.Transport = connection._transport  # type: ignore[attr-defined]
        self._answers = _Answers(self._listen)
        self._transport.set_protocol(self._answers)
        self._socket = _plain_tcp(self._transport) if self._answers_are_long else None

    @classmethod
    async def open(cls, settings: Settings, purpose: str) -> Writer:
        """Connect. Raises what asyncpg.connect raises."""
        return cls(await open_connection(settings, purpose))

    @property
    def is_open(self) -> bool:
        """The connection stands, as far as anybody has heard."""
        return not self._answers.lost and not self._transport.is_closing()

    async def copy(
        self, query: bytes, encoded: Iterable[bytes], messages: int, *, deliveries: int = 1, parts: bool = False
    ) -> None:
        """Send a query and what its COPYs take; on return it is committed. Broken off, the connection is closed.

        Args:
            query: a Query message, with `copy_accepted` in it.
            encoded: the streams of its tables in pieces, as `_core.Batch.encode` gives them.
            messages: how many envelopes those are.
            deliveries: how many COPYs of deliveries follow the one of envelopes.
            parts: whether one of parts of long messages comes last.

        Raises:
            asyncpg.PostgresError: what the server says; nothing is stored.
            OSError: the connection is gone, and nobody knows whether it is stored.
            asyncpg.InternalClientError: the server answered something else.
        """
        if not self.is_open:
            raise ConnectionResetError("the connection was closed")
        answer = self._answers.expect()
        try:
            with self._dozing():
                self._transport.write(query)
                await self._write(encoded)
                counts = await answer
        except asyncpg.PostgresError:
            raise  # It has answered, and is ready for the next.
        except BaseException:
            answer.cancel()
            self.close()
            raise
        if len(counts) != 1 + deliveries + parts or not (
            counts[0] == messages <= sum(counts[1 : 1 + deliveries]) and all(counts[1 + deliveries :])
        ):
            self.close()
            raise asyncpg.InternalClientError(f"{messages} messages were written, the server stored {counts}")

    async def _write(self, encoded: Iterable[bytes]) -> None:
        """Each piece when the last one has mostly left: the transport keeps a copy of what it could not send."""
        for piece in encoded:
            self._transport.write(piece)
            await self._answers.writable.wait()

    @contextlib.contextmanager
    def _dozing(self) -> Iterator[None]:
        """Not woken for less than an answer to the usual query, for a while; longer ones come in more words."""
        if self._socket is None:
            yield
            return
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _LEAST_ANSWER)
        timer = asyncio.get_running_loop().call_later(_DOZE_SECONDS, self._listen)
        try:
            yield
        finally:
            timer.cancel()
            self._listen()

    def _listen(self) -> None:
        if self._socket is not None and not self._transport.is_closing():
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def close(self) -> None:
        """At once."""
        with contextlib.suppress(asyncpg.InterfaceError):
            self._connection.terminate()
        self._transport.abort()


class Writers:
    """Up to `writer_count` of them, opened when they are needed."""

    def __init__(self, settings: Settings, purpose: str) -> None:
        self._settings = settings
        self._purpose = purpose
        most = writer_count(settings)
        self._room = asyncio.Semaphore(most)
        self._idle: list[Writer] = []
        self._generation = 0

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Writer]:
        """One for oneself, for a while.

        Raises:
            StoreUnavailable: there is none to be had, which is never the batch's fault.
        """
        async with self._room:
            generation = self._generation
            writer = self._one_that_stands() or await self._open()
            try:
                yield writer
            finally:
                if generation == self._generation and writer.is_open:
                    self._idle.append(writer)
                else:
                    writer.close()

    def expire(self) -> None:
        """Close all, those in use as soon as they are given back: one was found to be of no use."""
        self._generation += 1
        idle, self._idle = self._idle, []
        for writer in idle:
            writer.close()

    async def _open(self) -> Writer:
        try:
            return await Writer.open(self._settings, self._purpose)
        except asyncpg.PostgresError as error:
            refusal = translate(error, "connecting to Postgres")
            if refusal is None or isinstance(refusal, StoreUnavailable):
                raise
            raise StoreUnavailable(str(refusal)) from error

    def _one_that_stands(self) -> Writer | None:
        while self._idle:
            writer = self._idle.pop()  # the one used last: the others may be closed by and by
            if writer.is_open:
                return writer
            writer.close()
        return None


class _Answers(asyncio.Protocol):
    """What the server says, as far as it is needed here."""

    def __init__(self, on_part: Callable[[], None]) -> None:
        self.lost = False
        self._on_part = on_part  # when part of an answer has come, and the rest is to be heard at once
        self.writable = asyncio.Event()
        self.writable.set()
        self._bytes = bytearray()
        self._answer: asyncio.Future[list[int]] | None = None
        self._counts: list[int] = []
        self._error: asyncpg.PostgresError | None = None

    def expect(self) -> asyncio.Future[list[int]]:
        """The next answer: how many rows each COPY stored."""
        self._counts, self._error = [], None
        self._answer = asyncio.get_running_loop().create_future()
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        at = 0
        while len(self._bytes) - at >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._bytes, at)
            end = at + 1 + length
            if len(self._bytes) < end:
                break
            self._message(kind, bytes(self._bytes[at + _HEAD.size : end]))
            at = end
        del self._bytes[:at]
        if self._answer is not None:
            self._on_part()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.writable.set()  # What is written from now on goes nowhere.
        self._finish(self._error or exc or ConnectionResetError("the server closed the connection"))

    def _message(self, kind: bytes, content: bytes) -> None:
        if kind == b"C":  # CommandComplete, such as "COPY 50"
            word, _, count = content.rstrip(b"\0").rpartition(b" ")
            if word == b"COPY":
                self._counts.append(int(count))
        elif kind == b"E":
            self._error = _error(content)
        elif kind == b"Z":  # ReadyForQuery: the query has ended, well or not
            in_transaction = self._error is None and content != b"I"
            self._finish(asyncpg.InternalClientError("a transaction was left open") if in_transaction else self._error)

    def _finish(self, error: Exception | None) -> None:
        answer, self._answer = self._answer, None
        if answer is None or answer.done():
            return
        if error is None:
            answer.set_result(self._counts)
        else:
            answer.set_exception(error)


def _plain_tcp(transport: asyncio.Transport) -> socket.socket | None:
    """Where what the kernel counts is what the server says: not under TLS, and Unix sockets know no such mark."""
    raw: socket.socket | None = transport.get_extra_info("socket")
    if raw is None or raw.family not in (socket.AF_INET, socket.AF_INET6) or transport.get_extra_info("sslcontext"):
        return None
    return raw


def _error(content: bytes) -> asyncpg.PostgresError:
    """An ErrorResponse as asyncpg would raise it."""
    fields = {part[:1].decode(): part[1:].decode(errors="replace") for part in content.split(b"\0") if part}
    error: asyncpg.PostgresError = asyncpg.PostgresError.new(fields)
    return error
