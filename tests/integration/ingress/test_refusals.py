"""What is refused leaves nothing behind, and the session goes on where the protocol says so.

The exact replies are the dialogs' (`test_dialogs.py`); here it is what becomes of the mail.
"""

from __future__ import annotations

import pytest
from fix_ingress import BODY, Client, House, plain, queued_id, stuffed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

# smtp_max_message_bytes and smtp_max_recipients of the fixture `house`.
MESSAGE_BYTES, RECIPIENTS = 8 * 1024 * 1024, 3
SMUGGLED = b"MAIL FROM:<evil@sender.example>\r\nRCPT TO:<c@rcpt.example>\r\nDATA\r\nsmuggled\r\n"
MAIL, RCPT = "MAIL FROM:<a@sender.example>", "RCPT TO:<b@rcpt.example>"
LINE = b"x" * 998 + b"\r\n"


async def goes_on(house: House, client: Client) -> None:
    """Nothing is stored, and the same session submits the next message."""
    assert await house.stored() == []
    envelope_id = await client.submit()
    assert await house.stored() == [envelope_id]
    assert await house.body(envelope_id) == BODY


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"a\nb\r\n", id="bare LF"),
        pytest.param(b"a\rb\r\n", id="bare CR"),
        pytest.param(b"a\0b\r\n", id="NUL"),
        pytest.param(b"x" * 999 + b"\r\n", id="line of 1001 bytes"),
        pytest.param(b"x" * 100_000 + b"\r\n", id="line over many pieces"),
        pytest.param(b"a\r\n.\n" + SMUGGLED, id="smuggling"),
        pytest.param(b"a\n.\n" + SMUGGLED, id="smuggling by LF alone"),
        pytest.param(b"a\r.\r" + SMUGGLED, id="smuggling by CR alone"),
    ],
)
@pytest.mark.parametrize("where", ["alone", "behind a long text"])
async def test_a_text_that_is_refused(house: House, text: bytes, where: str) -> None:
    """Once, after its real final dot, whatever is in it."""
    client = await house.client()
    await client.begin()
    client.send((LINE * 200 if where == "behind a long text" else b"") + text + b".\r\n")
    assert (await client.reply()).startswith("554 5.6.0")
    await goes_on(house, client)


@pytest.mark.parametrize("length", [MESSAGE_BYTES + 2, 2 * MESSAGE_BYTES])
async def test_a_message_that_grows_too_large(house: House, length: int) -> None:
    client = await house.client()
    await client.begin()
    for _ in range(length // len(LINE) + 1):
        client.send(LINE)
        await client.writer.drain()
    client.send(b".\r\n")
    assert (await client.reply()).startswith("552 5.3.4")
    await goes_on(house, client)


async def test_a_message_of_just_the_limit(house: House) -> None:
    client = await house.client()
    body = LINE * (MESSAGE_BYTES // len(LINE))
    body += b"x" * (MESSAGE_BYTES - len(body) - 2) + b"\r\n"
    await client.command(250, f"MAIL FROM:<a@sender.example> SIZE={len(body)}")
    await client.command(250, RCPT)
    await client.command(354, "DATA")
    client.send(stuffed(body))
    assert await house.body(queued_id(await client.expect(250))) == body


async def test_a_message_declared_too_large(house: House) -> None:
    client = await house.client()
    assert (await client.say(f"MAIL FROM:<a@sender.example> SIZE={MESSAGE_BYTES + 1}")).startswith("552 5.3.4")
    await goes_on(house, client)


async def test_too_many_recipients(house: House) -> None:
    """The message goes to those that were accepted (RFC 5321 4.5.3.1.10)."""
    client = await house.client()
    await client.command(250, "MAIL FROM:<a@sender.example>")
    replies = [await client.say(f"RCPT TO:<r{n}@rcpt.example>") for n in range(RECIPIENTS + 2)]
    assert [reply[:9] for reply in replies] == ["250 2.1.5"] * RECIPIENTS + ["452 4.5.3"] * 2
    await client.command(354, "DATA")
    client.send(stuffed(BODY))
    envelope_id = queued_id(await client.expect(250))
    recipients = (await house.store.message(envelope_id)).summary.recipients
    assert recipients == tuple(f"r{n}@rcpt.example" for n in range(RECIPIENTS))


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        pytest.param(["AUTH PLAIN !!!!"], "501 5.5.2", id="no base64"),
        pytest.param(["AUTH PLAIN AGFwcA"], "501 5.5.2", id="base64 without its padding"),
        pytest.param(["AUTH PLAIN", "===="], "501 5.5.2", id="in a line of its own"),
        pytest.param(["AUTH LOGIN", "a b"], "501 5.5.2", id="a user name"),
        pytest.param(["AUTH LOGIN YXBw", "c2VjcmV"], "501 5.5.2", id="a password"),
        pytest.param([f"AUTH PLAIN {plain('app', 'x')[:-4]}"], "501 5.5.2", id="cut off"),
        pytest.param(["AUTH CRAM-MD5"], "504 5.5.4", id="another mechanism"),
        pytest.param(["AUTH PLAIN", "*"], "501 5.", id="given up"),
    ],
)
async def test_garbage_instead_of_a_login(house: House, lines: list[str], code: str) -> None:
    client = await house.client(log_in=False)
    replies = [await client.say(line) for line in lines]
    assert replies[-1].startswith(code)
    assert (await client.say(MAIL)).startswith("530")
    assert (await client.log_in()).startswith("235")
    await goes_on(house, client)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([RCPT], id="RCPT before MAIL"),
        pytest.param(["DATA"], id="DATA before MAIL"),
        pytest.param([MAIL, "DATA"], id="DATA before RCPT"),
        pytest.param([MAIL, MAIL], id="MAIL twice"),
        pytest.param([MAIL, "AUTH PLAIN AGEAYQ=="], id="AUTH in a transaction"),
        pytest.param(["STARTTLS"], id="STARTTLS under TLS"),
        pytest.param([MAIL, RCPT, "RSET", "DATA"], id="DATA after RSET"),
    ],
)
async def test_commands_out_of_order(house: House, lines: list[str]) -> None:
    client = await house.client()
    replies = [await client.say(line) for line in lines]
    assert [reply[:3] for reply in replies] == ["250"] * (len(lines) - 1) + ["503"]
    assert (await client.say("RSET")).startswith("250")
    await goes_on(house, client)


async def test_nothing_is_taken_in_plaintext(house: House) -> None:
    client = await house.connected("starttls")
    await client.expect(220)
    assert "AUTH" not in await client.command(250, "EHLO client.example")
    for line in (f"AUTH PLAIN {plain('a', 'b')}", MAIL, RCPT, "DATA"):
        assert (await client.say(line)).startswith(("530", "538", "503")), line
    await client.command(220, "STARTTLS")
    await client.start_tls(house.tls)
    await client.command(250, "EHLO client.example")
    assert (await client.log_in()).startswith("235")
    await goes_on(house, client)


async def test_nothing_is_taken_without_a_login(house: House) -> None:
    client = await house.client(log_in=False)
    for line in (MAIL, RCPT, "DATA"):
        assert (await client.say(line)).startswith("530"), line
    assert (await client.log_in()).startswith("235")
    await goes_on(house, client)


async def test_no_handshake_no_mail(house: House) -> None:
    """Who speaks plaintext at the door of TLS, or TLS at the door of plaintext, is sent away."""
    at_tls = await Client.connect(house.addresses["tls"])
    at_tls.send(b"EHLO client.example\r\n")
    assert b"250" not in await at_tls.reader.read()
    await at_tls.vanish()
    at_starttls = await house.connected("starttls")
    await at_starttls.expect(220)
    at_starttls.send(b"\x16\x03\x01\x02\x00\x01")
    assert (await at_starttls.reply()).startswith("421")
    assert await at_starttls.is_closed()
