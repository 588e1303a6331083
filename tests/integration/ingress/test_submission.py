"""Mail goes in: by every door and login, whole, into Postgres and then into the stream."""

from __future__ import annotations

import asyncio
import base64
import ssl
from uuid import UUID

import pytest
from certificates import Authority
from fix_ingress import BODY, PASSWORD, USERNAME, Client, House, Listener, MakeHouse, eventually, queued_id, stuffed

from smtp_proxy.model.envelope import DeliveryState

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

IDLE = 500


async def auth_login(client: Client) -> str:
    for line in ("AUTH LOGIN", encoded(USERNAME)):
        assert (await client.say(line)).startswith("334")
    return await client.say(encoded(PASSWORD))


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("listener", ["starttls", "tls"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_what_is_sent_is_what_is_stored(house: House, listener: Listener, mechanism: str) -> None:
    client = await house.client(listener, log_in=False)
    verdict = await (client.log_in() if mechanism == "PLAIN" else auth_login(client))
    assert verdict.startswith("235 2.7.0")
    envelope_id = await client.submit(BODY, "b@rcpt.example", "c@rcpt.example")
    assert (await client.say("QUIT")).startswith("221")
    assert await client.is_closed()

    assert await house.stored() == [envelope_id]
    assert await house.body(envelope_id) == BODY
    message = await house.store.message(envelope_id)
    summary = message.summary
    assert (summary.tenant_id, summary.credential_id) == (house.credential.tenant_id, house.credential.id)
    assert (summary.reverse_path, summary.recipients) == ("a@sender.example", ("b@rcpt.example", "c@rcpt.example"))
    assert (summary.size_bytes, summary.helo, summary.client_address) == (len(BODY), "client.example", "127.0.0.1")
    assert summary.tls
    assert [delivery.state for delivery in message.deliveries] == [DeliveryState.QUEUED] * 2
    await eventually(lambda: house.is_queued(envelope_id))


async def test_parameters_of_mail_are_stored(house: House) -> None:
    client = await house.client()
    await client.command(250, "MAIL FROM:<jürgen@bücher.example> BODY=8BITMIME SMTPUTF8")
    await client.command(250, "RCPT TO:<用户@例子.example>")
    await client.command(354, "DATA")
    body = "Subject: Grüße\r\n\r\nschön\r\n".encode()
    client.send(stuffed(body))
    envelope_id = queued_id(await client.expect(250))
    (row,) = await house.sql("SELECT reverse_path, body_type, smtputf8 FROM envelopes")
    assert tuple(row) == ("jürgen@bücher.example", 1, True)
    assert (await house.store.message(envelope_id)).summary.recipients == ("用户@例子.example",)
    assert await house.body(envelope_id) == body


async def test_a_large_message_with_every_byte(house: House) -> None:
    """Larger than what one statement takes (512 KiB), with dots at every place that matters."""
    line = bytes(byte for byte in range(1, 256) if byte not in b"\r\n")
    body = b"".join(b"." * (n % 4) + line[n % 200 :] + b"\r\n" for n in range(20_000))
    assert 2_000_000 < len(body) < 8_000_000
    client = await house.client()
    envelope_id = await client.submit(body)
    assert await house.body(envelope_id) == body


async def test_many_at_once_each_once(house: House) -> None:
    """Answers go to whom they belong, also when many share a transaction."""

    async def application(number: int) -> dict[UUID, bytes]:
        client = await house.client()
        bodies = [b"Subject: %d of %d\r\n\r\nx\r\n" % (n, number) for n in range(10)]
        return {await client.submit(body): body for body in bodies}

    sent: dict[UUID, bytes] = {}
    for each in await asyncio.gather(*(application(n) for n in range(20))):
        sent |= each
    assert len(sent) == 200
    rows = await house.sql("SELECT id AS envelope_id, content FROM envelopes")
    assert {row["envelope_id"]: bytes(row["content"]) for row in rows} == sent
    await eventually(lambda: house.is_queued(*sent))


async def test_one_write_of_everything(house: House) -> None:
    """PIPELINING: envelope, message and the next envelope (RFC 2920)."""
    client = await house.client()
    envelope = b"MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@rcpt.example>\r\nDATA\r\n"
    client.send(envelope)
    for code in (250, 250, 354):
        await client.expect(code)
    client.send(stuffed(b"first\r\n") + envelope)
    first = queued_id(await client.expect(250))
    for code in (250, 250, 354):
        await client.expect(code)
    client.send(stuffed(b"second\r\n") + b"QUIT\r\n")
    second = queued_id(await client.expect(250))
    await client.expect(221)
    assert [await house.body(each) for each in (first, second)] == [b"first\r\n", b"second\r\n"]


async def test_hundreds_of_idle_connections_are_in_nobodys_way(house: House) -> None:
    async def idle(number: int) -> Client:
        client = await house.connected("tls" if number % 10 == 0 else "starttls")
        await client.expect(220)
        await client.command(250, "EHLO idle.example")
        return client

    clients = [await client for client in asyncio.as_completed([idle(n) for n in range(IDLE)])]
    one = await house.client()
    sent = [await one.submit() for _ in range(20)]
    assert await house.stored() == sent
    assert await house.has_counted("connections_active", IDLE + 1)
    replies = await asyncio.gather(*(client.say("NOOP") for client in clients))
    assert [reply[:3] for reply in replies] == ["250"] * IDLE


@pytest.mark.parametrize("goes", ["at once", "in good order"])
async def test_whoever_vanishes_in_a_message_leaves_nothing(house: House, goes: str) -> None:
    texts = (b"", b"Subject: half\r\n\r\nHel", b"Subject: whole\r\n\r\nHello.\r\n", b"x\r\n.\r")
    for text in texts:
        client = await house.client()
        await client.begin()
        client.send(text)
        await client.writer.drain()
        await (client.vanish() if goes == "at once" else client.hang_up())
    await eventually(lambda: house.has_counted("vanished_total", len(texts)))
    assert await house.stored() == []
    after = await house.client()
    envelope_id = await after.submit()
    assert await house.stored() == [envelope_id]


async def test_plaintext_behind_starttls_is_discarded(house: House) -> None:
    """RFC 3207 4.2, CVE-2011-0411: in one packet with STARTTLS, and never read as commands."""
    client = await house.connected("starttls")
    await client.expect(220)
    await client.command(250, "EHLO client.example")
    client.send(b"STARTTLS\r\nEHLO evil.example\r\nMAIL FROM:<evil@sender.example>\r\nRSET\r\n")
    await client.expect(220)
    await client.start_tls(house.tls)
    assert (await client.say("NOOP")).startswith("250"), "the first word under TLS is this one's answer"
    assert (await client.say("MAIL FROM:<a@sender.example>")).startswith("503"), "nobody has said EHLO"
    await client.command(250, "EHLO client.example")
    assert (await client.log_in()).startswith("235")
    envelope_id = await client.submit()
    summary = (await house.store.message(envelope_id)).summary
    assert (summary.reverse_path, summary.helo) == ("a@sender.example", "client.example")
    assert await house.stored() == [envelope_id]


# OpenSSL's names by the registered ones; the certificate's key is ECDSA.
SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}


@pytest.mark.parametrize("listener", ["starttls", "tls"])
async def test_the_cipher_suite_is_kept(house: House, listener: Listener, authority: Authority) -> None:
    for wanted in (None, *SUITES):
        house.tls = ssl.create_default_context(cafile=authority.ca_file)
        if wanted is not None:
            house.tls.maximum_version = ssl.TLSVersion.TLSv1_2
            house.tls.set_ciphers(SUITES[wanted])
        client = await house.client(listener)
        agreed = client.writer.get_extra_info("cipher")[0]
        summary = (await house.store.message(await client.submit())).summary
        assert summary.tls_suite == (wanted or agreed)
        assert agreed == (SUITES[wanted] if wanted else summary.tls_suite)


async def test_the_plaintext_listener_submits_as_its_credential(make_house: MakeHouse) -> None:
    house = await make_house(smtp_plaintext_port=0, smtp_plaintext_username=USERNAME)
    await house.start()
    client = await house.client("plaintext")
    assert (await client.log_in()).startswith("503")
    summary = (await house.store.message(await client.submit())).summary
    assert (summary.credential_id, summary.tls, summary.tls_suite) == (house.credential.id, False, None)


async def test_accept_only_keeps_nothing_and_says_so(make_house: MakeHouse) -> None:
    house = await make_house(smtp_plaintext_port=0, smtp_accept_only=True)
    await house.start()
    client = await house.connected("plaintext")
    assert "discarded" in await client.expect(220)
    await client.command(250, "EHLO client.example")
    for _ in range(3):
        await client.submit()
    assert await house.stored() == []
