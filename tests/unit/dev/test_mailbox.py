"""What the sink keeps."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import Envelope
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.dev.mailbox import Mailbox
from smtp_proxy.dev.sink import Handler, make_app
from smtp_proxy.errors import ConfigurationError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ID = "01a212cb-adbf-7718-af3d-e3ea59233653"
RELAYED = (
    f"Received: from client ([127.0.0.1])\r\n\tby localhost with ESMTPSA id {ID};\r\n"
    "\tThu, 1 Jan 2026 00:00:00 +0000\r\n"
    "Message-ID: <a@b>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nbody\r\n"
).encode()


@pytest.mark.parametrize("behind", [b";", b"\r\n\ttls TLS_AES_256_GCM_SHA384;"])
def test_a_relayed_message_is_known_by_the_id_of_its_250(behind: bytes) -> None:
    box = Mailbox(None, 10)
    relayed = RELAYED.replace(b";", behind, 1)
    number = box.add("a@example.com", ["b@example.org", "c@example.org"], relayed, NOW)
    (kept,) = box.messages(0, 10)
    assert (kept.number, kept.id, kept.subject, kept.message_id) == (number, ID, "Grüße", "<a@b>")
    assert (kept.mail_from, kept.rcpt_tos) == ("a@example.com", ["b@example.org", "c@example.org"])
    assert (kept.size_bytes, kept.received_at) == (len(relayed), "2026-01-01T00:00:00+00:00")
    assert box.content(number) == relayed
    assert box.content(number + 1) is None


def test_an_id_further_down_is_somebody_elses() -> None:
    box = Mailbox(None, 10)
    box.add("", ["b@example.org"], b"Subject: x\r\n" + RELAYED, NOW)
    assert box.messages(0, 10)[0].id == ""


def test_the_newest_are_kept_and_numbers_go_on(tmp_path: Path) -> None:
    file = tmp_path / "sink" / "mail.sqlite"
    box = Mailbox(file, 5)
    for n in range(23):
        box.add("", ["b@example.org"], b"Subject: %d\r\n\r\n" % n, NOW)
    kept = box.messages(0, 100)
    assert 5 <= len(kept) < 10
    assert kept[-1].subject == "22"
    assert box.messages(kept[-2].number, 100) == kept[-1:]
    box.close()
    again = Mailbox(file, 5)
    assert again.messages(0, 100) == kept
    again.clear()
    assert again.count() == 0
    assert again.add("", ["b@example.org"], b"", NOW) == kept[-1].number + 1


@given(st.binary(max_size=300))
def test_anything_is_kept_as_it_came(content: bytes) -> None:
    box = Mailbox(None, 10)
    for mail in (content, b"Subject: " + content, b"Message-ID: " + content, b"Received: " + content):
        assert box.content(box.add("", ["b@example.org"], mail, NOW)) == mail
    assert len(box.messages(0, 10)) == 4
    box.close()


def test_a_file_that_can_not_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "mail.sqlite").write_text("this is not a database, and long enough to be sure of it" * 100)
    with pytest.raises(ConfigurationError, match=r"the sink can not use .*mail\.sqlite"):
        Mailbox(tmp_path / "mail.sqlite", 10)


async def test_what_can_not_be_kept_now_is_put_off(tmp_path: Path) -> None:
    """Somebody else holds the file: 451, so that the worker comes again."""
    file = tmp_path / "mail.sqlite"
    box = Mailbox(file, 10)
    handler = Handler(box)
    envelope = Envelope()
    envelope.mail_from, envelope.rcpt_tos, envelope.original_content = "<>", ["b@example.org"], b"Subject: x\r\n\r\n"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert (await handler.handle_DATA(None, None, envelope)).startswith("451 4.3.0")  # type: ignore[arg-type]
        other.execute("ROLLBACK")
    assert (await handler.handle_DATA(None, None, envelope)) == "250 2.0.0 kept as 1"  # type: ignore[arg-type]
    assert box.messages(0, 10)[0].mail_from == ""
    box.close()


async def test_an_address_that_is_no_utf_8_is_kept_and_listed() -> None:
    """aiosmtpd hands such bytes over as lone surrogates, which neither SQLite nor JSON can hold."""
    box = Mailbox(None, 10)
    box.add("a\udcff@example.com", ["b\udcfe@example.org"], b"Subject: \xff\r\n\r\n", NOW)
    assert (box.messages(0, 10)[0].mail_from, box.messages(0, 10)[0].rcpt_tos) == ("a?@example.com", ["b?@example.org"])
    assert await asked(make_app(box), "GET", "/messages") == 200
    box.close()


def test_the_http_side_says_that_the_file_is_held_by_somebody_else(tmp_path: Path) -> None:
    file = tmp_path / "mail.sqlite"
    box = Mailbox(file, 10)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.Error, match="locked"):
            box.clear()
        status = asyncio.run(asked(make_app(box), "DELETE", "/messages"))
        other.execute("ROLLBACK")
    assert status == 503
    assert asyncio.run(asked(make_app(box), "DELETE", "/messages")) == 204
    box.close()


async def asked(app: Any, method: str, path: str) -> int:
    """The status of one request, without a socket."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "query_string": b"", "headers": [], "scheme": "http", "root_path": "",
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip
    await app(scope, receive, send)
    return int(sent[0]["status"])
