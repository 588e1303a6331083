"""The writer's own protocol: what a server says, in whatever pieces it comes."""

from __future__ import annotations

import asyncio
import struct
from typing import Any, cast

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.store.writer import Writer, query_message

QUERY, ENCODED = query_message("COPY …"), b"rows"
PIECES = [b"a" * 1000, b"b" * 1000]


def said(kind: bytes, content: bytes = b"") -> bytes:
    return kind + struct.pack("!i", len(content) + 4) + content


def stored(*counts: int) -> bytes:
    answers = b"".join(said(b"G", b"\1\0\0") + said(b"C", b"COPY %d\0" % count) for count in counts)
    return answers + said(b"Z", b"I")


REFUSED = said(b"E", b"SERROR\0VERROR\0C53100\0Mcould not extend file\0\0") + said(b"Z", b"I")
NOISE = said(b"N", b"SNOTICE\0Mhello\0\0") + said(b"S", b"TimeZone\0UTC\0") + said(b"C", b"SAVEPOINT\0")


class Wire:
    """asyncpg's connection and its transport in one; answers as soon as all was written."""

    def __init__(self, *pieces: bytes, then_lost: bool = False) -> None:
        self._transport = self
        self._pieces = pieces
        self._then_lost = then_lost
        self.written = b""
        self.finish_with = QUERY + ENCODED
        self.closed = False
        self.protocol: asyncio.Protocol = asyncio.Protocol()

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        self.written += bytes(data)
        if self.written.endswith(self.finish_with):
            asyncio.get_running_loop().call_soon(self._answer)

    def get_extra_info(self, _name: str) -> None:
        return None  # no socket

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    terminate = abort

    def _answer(self) -> None:
        for piece in self._pieces:
            self.protocol.data_received(piece)
        if self._then_lost:
            self.protocol.connection_lost(None)


def writer(wire: Wire) -> Writer:
    return Writer(cast("asyncpg.Connection[Any]", wire))


@given(st.lists(st.integers(1, 200), max_size=6))
def test_any_split_of_the_answer_is_the_same_answer(cuts: list[int]) -> None:
    whole, pieces = NOISE + stored(2, 5), []
    for cut in cuts:
        piece, whole = whole[:cut], whole[cut:]
        pieces.append(piece)
    wire = Wire(*pieces, whole)

    async def copy() -> None:
        await writer(wire).copy(QUERY, [ENCODED], 2)

    asyncio.run(copy())
    assert wire.written == QUERY + ENCODED
    assert not wire.closed


async def test_what_the_server_refuses_is_raised_as_asyncpg_would() -> None:
    wire = Wire(REFUSED)
    with pytest.raises(asyncpg.DiskFullError, match="could not extend file") as caught:
        await writer(wire).copy(QUERY, [ENCODED], 2)
    assert caught.value.sqlstate == "53100"
    assert not wire.closed


@pytest.mark.parametrize("counts", [(2,), (1, 5), (2, 1), (2, 2, 5), ()])
async def test_another_answer_than_was_asked_for_is_no_success(counts: tuple[int, ...]) -> None:
    wire = Wire(stored(*counts))
    with pytest.raises(asyncpg.InternalClientError, match="2 messages were written"):
        await writer(wire).copy(QUERY, [ENCODED], 2)
    assert wire.closed


async def test_a_lost_connection_is_never_a_success() -> None:
    wire = Wire(stored(2, 2)[:-1], then_lost=True)
    lost = writer(wire)
    with pytest.raises(ConnectionResetError):
        await lost.copy(QUERY, [ENCODED], 2)
    assert not lost.is_open
    with pytest.raises(ConnectionResetError):
        await lost.copy(QUERY, [ENCODED], 2)


async def test_the_server_s_last_words_say_why() -> None:
    wire = Wire(said(b"E", b"SFATAL\0C57P01\0Mterminating\0\0"), then_lost=True)
    with pytest.raises(asyncpg.AdminShutdownError):
        await writer(wire).copy(QUERY, [ENCODED], 2)


async def test_much_is_written_in_pieces_as_they_leave() -> None:
    wire = Wire(stored(2, 2))
    slow = writer(wire)
    wire.protocol.pause_writing()
    copying = asyncio.create_task(slow.copy(QUERY, [*PIECES, ENCODED], 2))
    await asyncio.sleep(0)
    assert len(wire.written) == len(QUERY) + len(PIECES[0])
    wire.finish_with = b"".join(PIECES) + ENCODED
    wire.protocol.resume_writing()
    await copying
    assert wire.written == QUERY + b"".join(PIECES) + ENCODED


async def test_a_connection_lost_in_the_middle_of_writing_is_told() -> None:
    wire = Wire()
    slow = writer(wire)
    wire.protocol.pause_writing()
    copying = asyncio.create_task(slow.copy(QUERY, PIECES, 2))
    await asyncio.sleep(0)
    wire.protocol.connection_lost(None)
    with pytest.raises(ConnectionResetError):
        await copying


async def test_who_is_cancelled_leaves_no_connection_behind() -> None:
    wire = Wire()
    task = asyncio.create_task(writer(wire).copy(QUERY, [ENCODED], 2))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert wire.closed
