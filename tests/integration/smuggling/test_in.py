"""No published sequence ends a message at the live listener: one message or a refusal, never two.

Over TLS, in one write, byte by byte, and cut at every place in and around the sequence. The client asks for a reply
count, so a second message would show twice: as a reply too many, and as a row in Postgres.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from fix_ingress import PASSWORD, USERNAME, Client, House, MakeHouse, eventually, plain
from smuggling_vectors import PLACES, SMUGGLED, Place, Sequence, exchanges, sequences

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

REFUSED, TAKEN = "554 5.6.0", "250 2.0.0"


@pytest.fixture
async def house(make_house: MakeHouse) -> House:
    made = await make_house(smtp_max_errors_per_session=10_000)
    await made.start()
    return made


async def send(client: Client, *pieces: bytes) -> None:
    """Each piece on its own, far enough apart that the server reads it on its own."""
    for piece in pieces:
        client.send(piece)
        await client.writer.drain()
        await asyncio.sleep(0.002 if len(pieces) < 5 else 0)


async def submit(client: Client, recipient: str, *pieces: bytes) -> str:
    """One transaction with this text. The reply to NOOP shows that nothing else was answered."""
    await client.begin(recipient)
    await send(client, *pieces)
    answer = await client.reply()
    assert await client.say("NOOP") == "250 2.0.0 OK"
    return answer


async def attack(house: House, sequence: Sequence, place: Place) -> None:
    """However it is cut, what the vector says comes of it; what was taken is the whole text as one message."""
    client, recipient = await house.client(), f"{sequence.name}@rcpt.example"
    text = sequence.text(place)
    cuts = [[text], [bytes([byte]) for byte in text], *([text[:at], text[at:]] for at in sequence.around(place))]
    answers = {(await submit(client, recipient, *pieces))[: len(REFUSED)] for pieces in cuts}
    assert answers == {REFUSED if sequence.outcome == "refused" else TAKEN}, sequence.name
    found = await house.sql(
        "SELECT content FROM envelopes JOIN deliveries ON envelope_id = id WHERE recipient = $1", recipient
    )
    assert len(found) == (len(cuts) if sequence.outcome == "one" else 0)
    for row in found:
        assert b"MAIL FROM:<evil@sender.example>" in row["content"]
        assert row["content"].endswith(b"smuggled\r\n")


@pytest.mark.parametrize("place", PLACES)
async def test_never_two(house: House, place: Place) -> None:
    await asyncio.gather(*(attack(house, sequence, place) for sequence in sequences()))
    assert not await house.sql("SELECT 1 FROM deliveries WHERE recipient LIKE 'victim%'")


@pytest.mark.parametrize("listener", ["starttls", "tls"])
@pytest.mark.parametrize("place", PLACES)
async def test_in_one_packet_with_the_commands(house: House, listener: str, place: Place) -> None:
    """MAIL, RCPT, DATA, the text and QUIT at once, as PIPELINING would have it."""
    for sequence in sequences():
        client = await house.client(listener)  # type: ignore[arg-type]
        begin = b"MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@rcpt.example>\r\nDATA\r\n"
        client.send(begin + sequence.text(place) + b"QUIT\r\n")
        codes = [(await client.reply())[:3] for _ in range(5)]
        assert codes == ["250", "250", "354", "554" if sequence.outcome == "refused" else "250", "221"], sequence.name
        assert await client.is_closed()
    assert len(await house.stored()) == sum(sequence.outcome == "one" for sequence in sequences())


@pytest.mark.parametrize("name", exchanges())
async def test_exchanges_bring_at_most_one(house: House, name: str) -> None:
    for piece in (len(exchanges()[name]), 1, 7):
        client = await house.client()
        said = exchanges()[name]
        # Where what follows could not be told from text, the server says 421 and has gone before the rest is sent.
        with contextlib.suppress(ConnectionError):
            await send(client, *[said[at : at + piece] for at in range(0, len(said), piece)], b"\r\nQUIT\r\n")
            async with asyncio.timeout(20):
                while (line := await client.reader.readline()) and not line.startswith(b"221"):
                    pass
        assert len(await house.stored()) <= 1
        await house.sql("TRUNCATE envelopes CASCADE")


async def test_nothing_said_in_clear_lives_on_under_tls(house: House) -> None:
    """CVE-2011-0411: a whole transaction, with a good login, in one packet with STARTTLS."""
    client = await house.connected("starttls")
    await client.expect(220)
    await client.command(250, "EHLO client.example")
    client.send(b"STARTTLS\r\nEHLO evil\r\nAUTH PLAIN " + plain(USERNAME, PASSWORD).encode() + b"\r\n" + SMUGGLED)
    await client.expect(220)
    await client.start_tls(house.tls)
    assert await client.say("NOOP") == "250 2.0.0 OK"
    await client.command(250, "EHLO client.example")
    assert (await client.say("MAIL FROM:<a@sender.example>")).startswith("530")
    assert not await house.stored()


async def test_the_attack_itself_can_succeed(house: House) -> None:
    """The test of the tests: CRLF . CRLF does end a message, and the attack with it is told apart."""
    with pytest.raises((AssertionError, OSError)):
        await attack(house, Sequence("real", b"\r\n.\r\n", "one", "RFC 5321 4.1.1.4"), "body")

    async def arrived() -> bool:
        return bool(await house.sql("SELECT 1 FROM deliveries WHERE recipient LIKE 'victim%'"))

    await eventually(arrived)


def test_the_vectors_are_whole() -> None:
    found = sequences()
    assert len({sequence.content for sequence in found}) == len(found) == len({s.name for s in found})
    assert sum(not sequence.source.startswith("Not published") for sequence in found) >= 19
    assert not any(b"\r\n.\r\n" in sequence.content + SMUGGLED[:1] for sequence in found)
