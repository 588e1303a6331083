"""Next hops that answer to do harm: little memory, an end in time, and nothing of theirs in our records but text."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

import pytest
from mail import job
from scripted_server import ScriptedServer
from stopwatch import Stopwatch

from smtp_proxy.delivery.smtp import SmtpTransport
from smtp_proxy.model.attempt import Outcome, RecipientResult

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

TransportTo = Callable[..., SmtpTransport]
MOST_BYTES = 4 * 2**20  # of memory, for one delivery; the tests' own part included
VERBS = ("GREETING", "EHLO", "MAIL", "RCPT", "DATA", "DOT")


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        yield
        assert tracemalloc.get_traced_memory()[1] - before < MOST_BYTES
    finally:
        tracemalloc.stop()


Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(converse: Converse) -> AsyncIterator[int]:
    """A server that does this on every connection until it is left alone; its port."""
    open_now: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await converse(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            open_now.discard(task)

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if open_now:
            await asyncio.wait(open_now, timeout=5)


def flooding(verb: str, flood: Iterable[bytes]) -> Converse:
    """Answers as usual up to this verb, and then sends all of `flood`."""
    usual = {"GREETING": b"220 x\r\n", "EHLO": b"250 x\r\n", "DATA": b"354 go\r\n"}

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for at in VERBS:
            if at == "DOT":
                await reader.readuntil(b"\r\n.\r\n")
            elif at != "GREETING":
                await reader.readline()
            if at == verb:
                for piece in flood:
                    writer.write(piece)
                    await writer.drain()
                return
            writer.write(usual.get(at, b"250 ok\r\n"))

    return converse


FLOODS: dict[str, Callable[[], Iterable[bytes]]] = {
    "a line of 10 MB": lambda: itertools.chain([b"250 "], itertools.repeat(b"x" * 50_000, 200), [b"\r\n"]),
    "a line without end": lambda: itertools.chain([b"250 "], itertools.repeat(b"x" * 50_000)),
    "lines without end": lambda: itertools.repeat(b"250-and so on\r\n"),
    "many lines without end at once": lambda: itertools.repeat(b"250-and so on\r\n" * 5000),
    "replies without end": lambda: itertools.repeat(b"250 2.0.0 taken, taken\r\n" * 2000),
    "NULs": lambda: itertools.repeat(b"\0" * 65_536),
    "empty lines": lambda: itertools.repeat(b"\r\n" * 30_000),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_ends(verb: str, flood: str, transport_to: TransportTo) -> None:
    with Stopwatch() as delivery:
        async with serving(flooding(verb, FLOODS[flood]())) as port:
            with little_memory():
                (result,) = await transport_to(port).deliver(job())
    assert delivery.seconds < 5
    if flood == "replies without end" and verb == "DOT":
        # The first of them does answer the final dot.
        assert (result.outcome, result.reply_text) == (Outcome.DELIVERED, "taken, taken")
    else:
        assert result.outcome is (Outcome.UNKNOWN if verb == "DOT" else Outcome.DEFERRED)
        assert flood == "replies without end" or "broke the protocol" in result.reply_text
    check_clean(result)


async def test_a_reply_that_drips_is_not_waited_for(transport_to: TransportTo) -> None:
    """The first of three replies came; that gives the second its time, and no byte of the second gives it more."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 x\r\n")
        await reader.readline()
        writer.write(b"250-x\r\n250 PIPELINING\r\n")
        await reader.readline()
        writer.write(b"250 ok\r\n250-")
        while True:
            await asyncio.sleep(0.1)
            writer.write(b"x")
            await writer.drain()

    with Stopwatch() as delivery:
        async with serving(drip) as port:
            (result,) = await transport_to(port, command_timeout_seconds=0.5).deliver(job())
    assert "no answer within 0.5 s" in result.reply_text
    assert delivery.seconds < 2


HOSTILE_TEXTS = {
    "escape": b"\x1b]0;owned\x07\x1b[2J\x1b[31mgone",
    "NUL": b"a\0b\0",
    "not UTF-8": b"\xff\xfe\xc3(\xed\xa0\x80",
    "CR": b"250 2.0.0 taken\r250 2.0.0 taken",
    "another log line": b'x\x0b\x0c\xe2\x80\xa8\xc2\x85{"level":"info","message":"delivered"}',
    "turned around": b"\xe2\x80\xae\xd8\x9cdesufer\xe2\x81\xa6\xef\xbb\xbf",
    "long": b"y" * 4000,
    "enhanced code of another class": b"2.0.0 delivered",
}


def check_clean(result: RecipientResult) -> None:
    assert result.reply_text.replace("\ufffd", "").isprintable(), repr(result.reply_text)
    assert len(result.reply_text) <= 1200
    result.reply_text.encode()
    assert result.enhanced_code == "" or result.enhanced_code[0] == str(result.reply_code)[0]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("text", HOSTILE_TEXTS)
async def test_what_is_recorded_is_clean(verb: str, text: str, transport_to: TransportTo) -> None:
    raw = b"550-" + HOSTILE_TEXTS[text] + b"\r\n550 " + HOSTILE_TEXTS[text] + b"\r\n"
    server = ScriptedServer(answers={verb: raw})
    async with server.running():
        transport = transport_to(server.port)
        results = await transport.deliver(job("a@x", "b@x"))
        await transport.close()
    for result in results:
        check_clean(result)
        assert result.outcome is (Outcome.DEFERRED if verb in ("GREETING", "EHLO") else Outcome.REFUSED)
        assert not any(received.data for received in server.received)


@pytest.mark.parametrize(
    "injected",
    [b"550 ok\r\n", b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 2.0.0 taken\r\n", b"250-half", b"\xff", b"\r\n"],
)
@pytest.mark.parametrize("pipelining", [True, False])
async def test_answers_before_the_questions(injected: bytes, pipelining: bool, transport_to: TransportTo) -> None:
    """What comes behind the reply to EHLO answers nothing: no message counts as delivered that was not taken."""
    ehlo = b"250-x\r\n250-PIPELINING\r\n250 SIZE\r\n" if pipelining else b"250 x\r\n"
    server = ScriptedServer(answers={"EHLO": ehlo + injected})
    async with server.running():
        transport = transport_to(server.port)
        (result,) = await transport.deliver(job())
        await transport.close()
    assert result.outcome is not Outcome.DELIVERED
    assert not any(received.data for received in server.received)


@pytest.mark.parametrize("code", [200, 250, 350])
@pytest.mark.parametrize("pipelining", [True, False])
async def test_data_without_354_is_no_delivery(code: int, pipelining: bool, transport_to: TransportTo) -> None:
    """The message was not sent: whoever calls that done has not got it."""
    server = ScriptedServer(answers={"DATA": b"%d 2.0.0 done\r\n" % code}, extensions=(b"PIPELINING",) * pipelining)
    server.extensions = server.extensions or (b"SIZE",)
    async with server.running():
        transport = transport_to(server.port, connections=1)
        for _ in range(2):
            (result,) = await transport.deliver(job())
            assert (result.outcome, result.reply_code) == (Outcome.DEFERRED, 0)
            assert f"{code} to DATA" in result.reply_text
    assert server.connections == 2
