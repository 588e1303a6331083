"""What a submission server owes its users, seen at the next hop and by a client that logs in (RFC 6409 6.1 and 8)."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable
from email import message_from_bytes

import pytest
from fix_dev import Dev, until


def connect(dev: Dev, username: str, password: str) -> smtplib.SMTP:
    context = ssl.create_default_context(cafile=dev.ready["ca_file"])
    smtp = smtplib.SMTP_SSL("127.0.0.1", dev.ready["smtp"]["tls_port"], context=context, timeout=10)
    smtp.login(username, password)
    return smtp


def deliver(dev: Dev, recipients: list[str], message: bytes, subject: str) -> bytes:
    """Submit it; what the next hop got."""
    with connect(dev, dev.ready["user"], dev.ready["password"]) as smtp:
        assert smtp.sendmail("a@example.com", recipients, message) == {}
    found: list[int] = []

    def arrived() -> bool:
        found[:] = [int(m["number"]) for m in dev.sink() if m["subject"] == subject and m["rcpt_tos"] == recipients]
        return bool(found)

    until(arrived, 15, lambda: f"{subject} did not arrive\n{dev.tail()}")
    return dev.raw(found[0])


def test_a_careless_message_arrives_complete_and_without_its_bcc(dev: Dev) -> None:
    sent = (
        b"From: a@example.com\r\nTo: one@example.org\r\nBcc: two@example.org,\r\n three@example.org\r\n"
        b"Subject: careless\r\n\r\nBcc: belongs to the text\r\n"
    )
    raw = deliver(dev, ["one@example.org", "two@example.org", "three@example.org"], sent, "careless")
    message = message_from_bytes(raw)
    assert message.keys() == ["Received", "From", "To", "Subject", "Date", "Message-ID"]
    assert b"two@example.org" not in raw
    assert b"three@example.org" not in raw
    assert " for " not in message["Received"]
    assert "from " in message["Received"]
    assert message.get_payload() == "Bcc: belongs to the text\r\n"
    shown = dev.command("messages", "show", message["Message-ID"].strip("<>").partition("@")[0])
    assert "delivered" in shown


def test_who_submitted_can_be_hidden(make_dev: Callable[..., Dev]) -> None:
    dev = make_dev("--set", "received_client_address=hide", "--set", "smtp_add_missing_headers=false").start()
    raw = deliver(dev, ["one@example.org"], b"Subject: hidden\r\n\r\ntext\r\n", "hidden")
    assert raw.startswith(b"Received: by ")
    assert message_from_bytes(raw).keys() == ["Received", "Subject"]
    assert b"127.0.0.1" not in raw


def test_a_login_sends_as_whom_the_operator_says(dev: Dev) -> None:
    created = dev.command(
        "credential", "create", "dev", "shop", "--sender", "shop@example.com", "--sender", "*.example.net"
    )
    password = created.splitlines()[1].removeprefix("password: ")
    with connect(dev, "shop", password) as smtp:
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            smtp.sendmail("boss@example.com", ["b@example.org"], "Subject: no\r\n\r\n")
        assert (refused.value.smtp_code, refused.value.smtp_error) == (
            550, b"5.7.1 Not allowed to send as <boss@example.com>",
        )  # fmt: skip
        assert smtp.sendmail('"Shop"@EXAMPLE.com', ["b@example.org"], "Subject: yes\r\n\r\n") == {}
        dev.command("credential", "senders", "shop", "--add", "boss@example.com")

        def may_send_now() -> bool:
            with connect(dev, "shop", password) as late:
                return late.mail("boss@example.com")[0] == 250

        until(may_send_now, 10, lambda: "the change was not heeded")
        assert smtp.mail("boss@example.com")[0] == 550, "a session keeps the rights it began with"
    listed = dev.command("credential", "list")
    assert "boss@example.com" in listed
