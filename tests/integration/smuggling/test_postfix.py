"""From a submission through us to a real Postfix that reads line ends as it did before CVE-2023-51764."""

from __future__ import annotations

import asyncio

import pytest
from fix_ingress import MakeHouse, eventually
from fix_postfix import Postfix, postfix
from mail import core_envelope
from smuggling_vectors import SMUGGLED, sequences

from smtp_proxy.telemetry.lifecycle import Lifecycle
from smtp_proxy.worker import worker

__all__ = ["postfix"]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]


async def test_one_message_stays_one(make_house: MakeHouse, postfix: Postfix) -> None:
    house = await make_house(
        smtp_max_errors_per_session=10_000,
        smarthost_host="127.0.0.1",
        smarthost_port=postfix.port,
        smarthost_tls="none",
        sweep_interval_seconds=0.2,
        sweep_after_seconds=0.5,
    )
    await house.start()
    client = await house.client()
    taken = 0
    for sequence in sequences():
        await client.begin()
        client.send(sequence.text())
        taken += (await client.reply()).startswith("250")
    # And those that the core refuses, as if they had been stored all the same.
    await house.store.accept([core_envelope(body=sequence.body()) for sequence in sequences()], sweep_after_seconds=0.0)

    async def settled() -> bool:
        return not await house.sql("SELECT 1 FROM deliveries WHERE state NOT IN (2, 3)")

    lifecycle = Lifecycle(house.settings.shutdown_timeout_seconds)
    serving = asyncio.create_task(worker.serve(house.settings, lifecycle))
    try:
        await eventually(settled, 40)
    finally:
        lifecycle.stop("the test is over")
        await serving
    one = sum(sequence.outcome == "one" for sequence in sequences())
    # What cannot be sent is reported to its sender.
    reports = [message for message in postfix.messages() if b"multipart/report" in message]
    messages = [message for message in postfix.messages() if message not in reports]
    assert taken == one
    assert (len(messages), len(reports)) == (2 * one, len(sequences()) - one)
    assert not any(b"recipient: victim@rcpt.example" in message for message in messages)
    assert all(message.count(b"Subject: smuggled") == 1 for message in messages)


async def test_this_postfix_is_naive(postfix: Postfix) -> None:
    """The test of the test: what a careless relay passes on becomes two messages."""
    reader, writer = await asyncio.open_connection("127.0.0.1", postfix.port)
    begin = b"EHLO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@rcpt.example>\r\nDATA\r\n"
    writer.write(begin + b"A: b\r\n\r\nfirst\n.\r\n" + SMUGGLED + b"QUIT\r\n")
    async with asyncio.timeout(20):
        await reader.read()
    writer.close()
    messages = postfix.messages()
    assert len(messages) == 2
    assert any(b"recipient: victim@rcpt.example" in message for message in messages)
