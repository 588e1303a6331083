"""What the service adds to a message and takes out of it, as it lies in Postgres."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from email.utils import parsedate_to_datetime

import pytest
from fix_ingress import BODY, MakeHouse

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


async def test_a_message_can_be_looked_up_by_the_id_it_was_given(make_house: MakeHouse) -> None:
    house = await make_house(smtp_add_missing_headers=True)
    await house.start()
    client = await house.client()
    began = datetime.now(UTC)
    envelope_id = await client.submit(BODY)
    kept = await house.body(envelope_id)
    header, _, text = kept.partition(b"\r\n\r\n")
    assert text == BODY.partition(b"\r\n\r\n")[2]
    message = BytesParser().parsebytes(kept)
    assert message.items()[:2] == [("From", "a@sender.example"), ("Subject", "test")]
    assert message["Message-ID"] == f"<{envelope_id}@mx.example.com>"
    assert began - timedelta(seconds=1) <= parsedate_to_datetime(message["Date"]) <= datetime.now(UTC)
    assert re.search(rb"\r\nDate: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000\r\n", header)
    assert (await house.store.message(envelope_id)).summary.size_bytes == len(kept)


async def test_a_large_message_is_put_together_whole(make_house: MakeHouse) -> None:
    """Larger than what one statement takes (512 KiB): the additions stand between, and no byte is lost."""
    house = await make_house(smtp_add_missing_headers=True)
    await house.start()
    text = b"".join(b"%d" % n * 9 + b"\r\n" for n in range(100_000))
    client = await house.client()
    envelope_id = await client.submit(b"Subject: large\r\nBcc: hidden@example.org\r\n\r\n" + text)
    kept = await house.body(envelope_id)
    assert kept.startswith(b"Subject: large\r\nDate: ")
    assert kept.endswith(b"@mx.example.com>\r\n\r\n" + text)
    assert b"hidden" not in kept


async def test_the_largest_message_allowed_may_grow(make_house: MakeHouse) -> None:
    house = await make_house(smtp_add_missing_headers=True, smtp_max_message_bytes=65_536)
    await house.start()
    body = b"x" * 98 + b"\r\n"
    body = body * (65_536 // 100) + b"y" * 34 + b"\r\n"
    assert len(body) == 65_536
    client = await house.client()
    kept = await house.body(await client.submit(body))
    assert kept.endswith(b">\r\n\r\n" + body)
