"""Clients that are broken, hostile or gone: nothing of theirs is delivered, and everybody else's mail is."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fix_dev import Dev, until
from senders import Wire, closed

ENVELOPE = b"MAIL FROM:<bad@test.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\n"
BODIES = {
    "bare LF": b"Subject: bad\r\n\r\none\ntwo\r\n.\r\n",
    "bare CR": b"Subject: bad\r\n\r\none\rtwo\r\n.\r\n",
    "smuggled by LF.LF": b"Subject: bad\r\n\r\nx\n.\nMAIL FROM:<evil@test.example>\r\n.\r\n",
    "smuggled by CR.CR": b"Subject: bad\r\n\r\nx\r.\rMAIL FROM:<evil@test.example>\r\n.\r\n",
    "smuggled by LF.CRLF": b"Subject: bad\r\n\r\nx\n.\r\nMAIL FROM:<evil@test.example>\r\n.\r\n",
    "NUL": b"Subject: bad\r\n\r\none\0two\r\n.\r\n",
    "over-long line": b"Subject: bad\r\n\r\n" + b"x" * 1200 + b"\r\n.\r\n",
    "oversize": b"Subject: bad\r\n\r\n" + (b"x" * 78 + b"\r\n") * 340_000 + b".\r\n",
}
OUT_OF_ORDER = ["RCPT TO:<b@test.example>", "DATA", "AUTH PLAIN AGEAYg==", "STARTTLS", "NONSENSE", "MAIL FROM:nobody"]


@asynccontextmanager
async def connected(dev: Dev) -> AsyncIterator[Wire]:
    wire = await Wire.open("127.0.0.1", dev.ready["smtp"]["plaintext_port"])
    try:
        yield wire
    finally:
        await wire.close()


async def send_good(wire: Wire, subject: str) -> None:
    content = f"Subject: {subject}\r\n\r\nhello\r\n".encode()
    await wire.transaction("good@test.example", "b@test.example", content)


def only_good(dev: Dev, subject: str) -> None:
    """This one arrives, and of the bad ones none has."""
    until(lambda: subject in [message["subject"] for message in dev.sink()], 20, dev.tail)
    assert [message for message in dev.sink() if message["mail_from"] != "good@test.example"] == []


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_is_not_mail(dev: Dev, name: str) -> None:
    """Refused at its real end; the session goes on, and nothing after a smuggled end was taken for a command."""
    async with connected(dev) as wire:
        wire.writer.write(ENVELOPE)
        for code in (250, 250, 354):
            await wire.expect(code)
        wire.writer.write(BODIES[name])
        await wire.writer.drain()
        assert (await wire.reply())[:3] in ("550", "552", "554", "500")
        await wire.command(250, "NOOP")
        await send_good(wire, f"after {name}")
    only_good(dev, f"after {name}")


async def test_commands_out_of_order_and_too_many_recipients(dev: Dev) -> None:
    async with connected(dev) as wire:
        for line in OUT_OF_ORDER:
            wire.writer.write(f"{line}\r\n".encode())
            assert (await wire.reply())[0] == "5", line
        await wire.command(250, "MAIL FROM:<bad@test.example>")
        for number in range(1000):
            await wire.command(250, f"RCPT TO:<r{number}@test.example>")
        await wire.command(452, "RCPT TO:<onemore@test.example>")
        await wire.command(250, "RSET")
        await send_good(wire, "after disorder")
    only_good(dev, "after disorder")


async def test_clients_that_vanish_in_the_middle(dev: Dev) -> None:
    for part in (b"", b"Subject: bad\r\n", b"Subject: bad\r\n\r\nbody\r\n.", b"Subject: bad\r\n\r\nbody\r\n.\r"):
        async with connected(dev) as wire:
            wire.writer.write(ENVELOPE + part)
            await wire.expect(250)
    async with connected(dev) as wire:
        await send_good(wire, "after the vanished")
    only_good(dev, "after the vanished")


async def test_500_idle_connections_are_in_nobody_s_way(dev: Dev) -> None:
    port = dev.ready["smtp"]["plaintext_port"]
    idle = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(500)))
    try:
        async with asyncio.timeout(10), connected(dev) as wire:
            await send_good(wire, "beside 500")
        for reader, _ in idle:
            assert (await reader.readline()).startswith(b"220 ")
    finally:
        for _, writer in idle:
            await closed(writer)
    only_good(dev, "beside 500")


async def test_plaintext_after_starttls_is_forgotten(dev: Dev) -> None:
    """CVE-2011-0411: what came in the same packet as STARTTLS was not said under TLS."""
    smtp = dev.ready["smtp"]
    reader, writer = await asyncio.open_connection("127.0.0.1", smtp["starttls_port"])
    wire = Wire(reader, writer)
    try:
        await wire.expect(220)
        await wire.command(250, "EHLO client.example")
        login = base64.b64encode(f"\0{dev.ready['user']}\0{dev.ready['password']}".encode()).decode()
        injected = f"STARTTLS\r\nEHLO evil\r\nAUTH PLAIN {login}\r\nMAIL FROM:<bad@test.example>\r\n"
        writer.write(injected.encode())
        await wire.expect(220)
        await writer.start_tls(ssl.create_default_context(cafile=dev.ready["ca_file"]), server_hostname="localhost")
        # Nothing was answered under TLS yet, and nobody is logged in.
        await wire.command(250, "EHLO client.example")
        await wire.command(530, "MAIL FROM:<bad@test.example>")
        await wire.command(501, "AUTH PLAIN not-base64!")
    finally:
        await closed(writer)
