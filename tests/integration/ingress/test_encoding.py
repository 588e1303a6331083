"""The core's encoding of a batch and the store's own are one: byte for byte, and as rows of a real Postgres."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from fix_ingress import House

from smtp_proxy.core import BODY, RECEIVED_AT_US, Batch, CoreServer, EnvelopeRow, ServerConfig
from smtp_proxy.store.accept import Written, encode
from smtp_proxy.store.decode import decode

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

IDENTITY = (b"t" * 16, b"c" * 16, "somebody")
SWEEP_AT_US = 1_800_000_000_123_456
BIG = b"Subject: big\r\n\r\n" + b"0123456789abcdef\r\n" * 20_000  # in parts, and in more than one CopyData message
MAILS = [
    ("<a@sender.example>", ["<b@rcpt.example>"], b"Subject: one\r\n\r\ntext\r\n"),
    ("<>", ["<b@rcpt.example>", "<c@rcpt.example>", "<postmaster>"], b""),
    ("<jürgen@bücher.example> SMTPUTF8", ["<用户@例子.example>"], "Subject: Grüße\r\n\r\n".encode()),
    ('<"quoted local"@[IPv6:2001:db8::1]> BODY=8BITMIME', ["<b@[192.0.2.1]>"] * 9, BIG),
    ("<a@sender.example>", ["<b@rcpt.example>"], BIG),
    (
        "<a@sender.example> RET=HDRS ENVID=QQ314159",
        ["<b@rcpt.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@rcpt.example", "<c@rcpt.example> NOTIFY=NEVER", "<d@x>"],
        b"Subject: dsn\r\n\r\n",
    ),
]


@pytest.fixture
async def core() -> AsyncIterator[CoreServer]:
    config = ServerConfig(hostname="mx.example", plaintext_address="127.0.0.1:0", plaintext_identity=IDENTITY)
    server = CoreServer(config, batch_messages=100, batch_bytes=1 << 30)
    yield server
    await server.stop()


async def submit(
    address: tuple[str, int], reverse_path: str, recipients: list[str], body: bytes
) -> asyncio.StreamWriter:
    """Up to the final dot; the answer is the test's to give. Returns the connection, which must live until then."""
    reader, writer = await asyncio.open_connection(*address)
    commands = ["EHLO client.example", f"MAIL FROM:{reverse_path}", *(f"RCPT TO:{path}" for path in recipients), "DATA"]
    for command in commands:
        writer.write(command.encode() + b"\r\n")
        while (line := await reader.readline())[3:4] == b"-":
            pass
        assert line[:1] in b"23", (command, line)
    writer.write(body + b".\r\n")
    return writer


async def batch_of_all(core: CoreServer, address: tuple[str, int]) -> Batch:
    connections = []
    for number, mail in enumerate(MAILS, 1):
        connections.append(await submit(address, *mail))
        async with asyncio.timeout(10):
            while core.stats()["envelopes_queued"] < number:
                await asyncio.sleep(0.005)
    for connection in connections:
        connection.close()
    return await core.next_batch()


def comparable(row: EnvelopeRow) -> tuple[object, ...]:
    """All but the id, the time, and the header fields made of them."""
    body = re.sub(rb"(Date|Message-ID): [^\r]*\r\n", b"", row[BODY])
    return (*row[1:BODY], body, *row[BODY + 1 : RECEIVED_AT_US], *row[RECEIVED_AT_US + 1 :])


def streams(encoded: bytes) -> list[bytes]:
    """The content of each COPY, however it was cut into messages."""
    found, current = [], b""
    while encoded:
        end = 1 + int.from_bytes(encoded[1:5], "big")
        if encoded[:1] == b"c":
            found.append(current)
            current = b""
        else:
            current += encoded[5:end]
        encoded = encoded[end:]
    return found


async def test_both_write_the_same(core: CoreServer, house: House) -> None:
    address = core.start()["plaintext"]
    rows = (await batch_of_all(core, address)).envelopes()
    batch = await batch_of_all(core, address)
    ids, pieces = batch.ids(), list(batch.encode(SWEEP_AT_US))
    assert all(len(piece) < 300_000 for piece in pieces)
    assert batch.encode(SWEEP_AT_US).has_parts
    encoded = b"".join(pieces)
    assert encoded == b"".join(batch.encode(SWEEP_AT_US)), "it may be had again"
    again = decode(encoded)
    assert [row[0] for row in again] == ids
    assert [comparable(row) for row in again] == [comparable(row) for row in rows]
    assert all(b"Message-ID: <" + str(UUID(bytes=row[0])).encode() in row[BODY] for row in (*rows, *again))
    assert batch.envelopes() == again
    with pytest.raises(ValueError, match="have left"):
        batch.encode(SWEEP_AT_US)
    assert streams(encoded) == streams(b"".join(encode(again, SWEEP_AT_US)))

    await house.store.accept_encoded(lambda _: Written(pieces, True), len(again), sweep_after_seconds=1)
    stored = {summary.id.bytes: summary for summary in await house.store.list_messages(limit=20)}
    assert [(stored[row[0]].reverse_path, list(stored[row[0]].recipients)) for row in again] == [
        (row[3], row[4]) for row in again
    ]
    assert [await house.body(UUID(bytes=row[0])) for row in again] == [row[BODY] for row in again]
