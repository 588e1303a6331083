"""Reports: read by Python's own parser, with every field of RFC 3464, whatever message and replies hold."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult
from smtp_proxy.model.dsn import Ret
from smtp_proxy.model.envelope import BodyType, Envelope, Recipient
from smtp_proxy.worker.dsn import Action, Ending, report

ID = UUID("019aba2c-8f1e-7c3a-9d3e-000000000009")
REPORT_ID = UUID("019aba2c-8f1e-7c3a-9d3e-00000000000a")
RECEIVED = datetime(2026, 11, 26, 8, 0, tzinfo=UTC)
NOW = RECEIVED + timedelta(hours=5)
BODY = b"From: me@example.com\r\nMessage-ID: <1@example.com>\r\nSubject: hello\r\n\r\nthe text\r\n"


def envelope(body: bytes = BODY, reverse_path: str = "me@example.com", **changes: object) -> Envelope:
    values = {"ret": None, "envid": None, "smtputf8": False, **changes}
    return Envelope(
        ID, ID, ID, reverse_path, body, BodyType.SEVEN_BIT, bool(values["smtputf8"]), RECEIVED,
        ret=values["ret"], envid=values["envid"],
    )  # fmt: skip


def ending(
    action: Action = Action.FAILED, address: str = "you@example.net", number: int = 0, text: str = "user unknown",
    orcpt: str | None = None,
) -> Ending:  # fmt: skip
    outcome = {Action.FAILED: Outcome.REFUSED, Action.DELAYED: Outcome.DEFERRED, Action.RELAYED: Outcome.DELIVERED}
    code = {Action.FAILED: (550, "5.1.1"), Action.DELAYED: (451, "4.3.0"), Action.RELAYED: (250, "2.1.5")}[action]
    result = RecipientResult(number, outcome[action], *code, text, "mx.example.net:25", Kind.HARD)
    until = NOW + timedelta(days=4) if action is Action.DELAYED else None
    return Ending(Recipient(number, address, 3, None, orcpt), action, result, NOW, until)


def parsed(about: Envelope, *endings: Ending, full_max_bytes: int = 10_000) -> tuple[Envelope, EmailMessage]:
    made = report(about, endings, REPORT_ID, "mail.example.org", NOW, full_max_bytes)
    message = email.message_from_bytes(made.body, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return made, message


def groups(message: EmailMessage) -> list[EmailMessage]:
    """The fields on the message, then those of each recipient."""
    return list(message.get_payload()[1].get_payload())


def test_a_failure() -> None:
    made, message = parsed(envelope(envid="QQ+2B314"), ending(orcpt="rfc822;You+2Btag@example.net"))
    assert (made.reverse_path, made.id, made.smtputf8, made.body_type) == ("", REPORT_ID, False, BodyType.SEVEN_BIT)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["To"] == "me@example.com"
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@mail.example.org>"
    assert (message["Auto-Submitted"], message["References"]) == ("auto-replied", "<1@example.com>")
    assert message["Message-ID"] == f"<{REPORT_ID}@mail.example.org>"
    text, status, returned = message.get_payload()
    assert "user unknown" in text.get_content()
    assert status.get_content_type() == "message/delivery-status"
    of_message, of_recipient = groups(message)
    assert of_message["Original-Envelope-Id"] == "QQ+314"
    assert of_message["Reporting-MTA"] == "dns; mail.example.org"
    assert of_message["Arrival-Date"] == "Thu, 26 Nov 2026 08:00:00 +0000"
    assert dict(of_recipient.items()) == {
        "Original-Recipient": "rfc822;You+tag@example.net",
        "Final-Recipient": "rfc822; you@example.net",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.example.net",
        "Diagnostic-Code": "smtp; 550 5.1.1 user unknown",
        "Last-Attempt-Date": "Thu, 26 Nov 2026 13:00:00 +0000",
        "Final-Log-ID": str(ID),
    }
    assert returned.get_content_type() == "text/rfc822-headers"
    assert "Subject: hello" in returned.get_content()
    assert b"the text" not in made.body


@pytest.mark.parametrize(
    ("ret", "action", "limit", "whole"),
    [
        (Ret.FULL, Action.FAILED, 10_000, True),
        (Ret.FULL, Action.FAILED, 10, False),
        (Ret.FULL, Action.DELAYED, 10_000, False),
        (Ret.HDRS, Action.FAILED, 10_000, False),
        (None, Action.FAILED, 10_000, False),
    ],
)
def test_how_much_comes_back(ret: Ret | None, action: Action, limit: int, whole: bool) -> None:
    """RFC 3461 4.3: RET is about failures alone."""
    made, message = parsed(envelope(ret=ret), ending(action), full_max_bytes=limit)
    returned = message.get_payload()[2]
    assert returned.get_content_type() == ("message/rfc822" if whole else "text/rfc822-headers")
    assert (BODY in made.body) == whole
    assert (b"the text" in made.body) == whole


def test_a_delay_says_until_when() -> None:
    _, message = parsed(envelope(), ending(Action.DELAYED, text="busy"))
    fields = groups(message)[1]
    assert (fields["Action"], fields["Status"]) == ("delayed", "4.3.0")
    assert fields["Will-Retry-Until"] == "Mon, 30 Nov 2026 13:00:00 +0000"
    assert message["Subject"] == "Your message is delayed"


def test_recipients_that_ended_together_share_a_report() -> None:
    _, message = parsed(envelope(), ending(), ending(Action.RELAYED, "b@example.net", 1), ending(address="c@x.example"))
    assert [(g["Action"], g["Final-Recipient"]) for g in groups(message)[1:]] == [
        ("failed", "rfc822; you@example.net"),
        ("relayed", "rfc822; b@example.net"),
        ("failed", "rfc822; c@x.example"),
    ]


def test_a_status_contradicts_no_action() -> None:
    given_up = ending()
    wrong = RecipientResult(0, Outcome.REFUSED, 451, "4.3.0", "busy", "")
    _, message = parsed(envelope(), Ending(given_up.recipient, Action.FAILED, wrong, NOW))
    assert groups(message)[1]["Status"] == "5.0.0"
    assert "Remote-MTA" not in groups(message)[1]


def test_utf8_where_ascii_can_not_say_it() -> None:
    """RFC 6533."""
    body = "From: jürgen@exämple.example\r\nSubject: grüße\r\n\r\ntext\r\n".encode()
    made, message = parsed(
        envelope(body, "jürgen@exämple.example", smtputf8=True),
        ending(address="ü@exämple.example", orcpt="utf-8;\\x{FC}@example.net", text="unbekannt: ü"),
    )
    assert (made.smtputf8, made.body_type) == (True, BodyType.EIGHT_BIT_MIME)
    assert message.get_param("report-type") == "global-delivery-status"
    _, status, returned = message.get_payload()
    assert status.get_content_type() == "message/global-delivery-status"
    assert returned.get_content_type() == "message/global-headers"
    raw = made.body.decode()
    assert "Final-Recipient: utf-8; ü@exämple.example\r\n" in raw
    assert "Original-Recipient: utf-8;ü@example.net\r\n" in raw
    assert "Subject: grüße" in raw
    assert "To: <jürgen@exämple.example>\r\n" in raw


def test_eight_bit_text_comes_back_as_it_was() -> None:
    body = BODY + b"\xfc\xff\r\n"
    made, message = parsed(envelope(body, ret=Ret.FULL), ending())
    assert body in made.body
    assert (message["Content-Transfer-Encoding"], made.body_type) == ("8bit", BodyType.EIGHT_BIT_MIME)


@pytest.mark.parametrize(
    "orcpt", ["rfc822;a+0D+0ABcc: x@y.example", "utf-8;a\\x{D}\\x{A}Bcc: y", "rfc822;+0D+0A+0D+0A"]
)
def test_nobody_writes_a_field_of_ours(orcpt: str) -> None:
    about = envelope(envid="a+0D+0AAction: delivered")
    made, message = parsed(about, ending(orcpt=orcpt, text="x\r\nAction: delivered"))
    assert "Bcc" not in groups(message)[1]
    assert groups(message)[1].get_all("Action") == ["failed"]
    assert groups(message)[0].get_all("Action") is None
    assert len(groups(message)) == 2
    assert b"\r\nBcc" not in made.body


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3000),
    st.binary(max_size=300).map(lambda raw: raw.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")),
    st.sampled_from([None, Ret.FULL]),
)
def test_any_reply_about_any_message(text: str, raw: bytes, ret: Ret | None) -> None:
    made, message = parsed(envelope(b"X: " + raw + b"\r\n\r\n" + raw, ret=ret), ending(text=text))
    assert len(message.get_payload()) == 3
    assert groups(message)[1].get_all("Action") == ["failed"]
    lines = made.body.split(b"\r\n")
    assert all(len(line) <= 998 for line in lines)
    assert not any(b"\n" in line or b"\r" in line for line in lines), "CRLF alone ends a line"
