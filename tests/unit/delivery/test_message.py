"""What a message asks of the next hop, what MAIL says, and the trace in front."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from mail import envelope

from smtp_proxy.config import Settings
from smtp_proxy.delivery.capabilities import Capabilities, read_ehlo
from smtp_proxy.delivery.classify import from_reply, outcome_of
from smtp_proxy.delivery.dsn import on_the_wire, rcpt_parameters
from smtp_proxy.delivery.message import compose
from smtp_proxy.delivery.reply import Reply
from smtp_proxy.delivery.route import smarthost
from smtp_proxy.delivery.trace import received_field
from smtp_proxy.delivery.wire import UnfitForWire
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.dsn import Notify, Ret
from smtp_proxy.model.envelope import BodyType, Envelope, Recipient

EVERYTHING = Capabilities(pipelining=True, eight_bit_mime=True, smtputf8=True, size=True, size_bytes=10_000)
NOTHING = Capabilities()
UTF8_HEADER = "Subject: grün\r\n\r\nhello\r\n".encode()
UTF8_BODY = "Subject: green\r\n\r\ngrün\r\n".encode()


def mail(body: bytes = b"A: b\r\n\r\nc\r\n", **options: object) -> tuple[bytes, bytes]:
    message = compose(envelope(body, **options), "mx.example")  # type: ignore[arg-type]
    return (
        message.mail_command(EVERYTHING, utf8_recipient=False),
        message.mail_command(NOTHING, utf8_recipient=False),
    )


def test_plain_mail() -> None:
    full, bare = mail()
    assert full.startswith(b"MAIL FROM:<a@sender.example> SIZE=")
    assert b"BODY" not in full
    assert b"SMTPUTF8" not in full
    assert bare == b"MAIL FROM:<a@sender.example>"


def test_the_null_reverse_path() -> None:
    assert mail(reverse_path="")[1] == b"MAIL FROM:<>"


def test_ret_and_envid_go_to_who_offers_dsn() -> None:
    asked = replace(envelope(), ret=Ret.HDRS, envid="QQ+2B1")
    message = compose(asked, "mx.example")
    dsn = Capabilities(dsn=True)
    assert message.mail_command(dsn, utf8_recipient=False) == b"MAIL FROM:<a@sender.example> RET=HDRS ENVID=QQ+2B1"
    assert message.mail_command(NOTHING, utf8_recipient=False) == b"MAIL FROM:<a@sender.example>"
    only = compose(replace(envelope(), envid="x"), "mx.example")
    assert only.mail_command(dsn, utf8_recipient=False).endswith(b"> ENVID=x")
    assert compose(envelope(), "mx.example").mail_command(dsn, utf8_recipient=False).endswith(b".example>")


@pytest.mark.parametrize(
    ("notify", "orcpt", "parameters"),
    [
        (None, None, ""),
        (Notify.NEVER, None, " NOTIFY=NEVER"),
        (Notify.DELAY | Notify.SUCCESS, None, " NOTIFY=SUCCESS,DELAY"),
        (None, "rfc822;a+2Bb@x", " ORCPT=rfc822;a+2Bb@x"),
        (Notify.FAILURE, "utf-8;jörg@x", " NOTIFY=FAILURE ORCPT=utf-8;jörg@x"),
    ],
)
def test_notify_and_orcpt(notify: Notify | None, orcpt: str | None, parameters: str) -> None:
    assert rcpt_parameters(Recipient(0, "b@x", 1, notify, orcpt)) == parameters


@pytest.mark.parametrize("bad", ["", "a b", "a\r\nRCPT TO:<x@y>", "a\0", "a=b", "a\x7f", "a\x85", "a\u2028", "\ud800"])
def test_a_parameter_cannot_add_another(bad: str) -> None:
    with pytest.raises(UnfitForWire):
        rcpt_parameters(Recipient(0, "b@x", 1, None, bad))
    with pytest.raises(UnfitForWire):
        compose(replace(envelope(), envid=bad), "mx.example")


@pytest.mark.parametrize(
    ("orcpt", "in_ascii"),
    [
        ("rfc822;a+2Bb@x", "rfc822;a+2Bb@x"),
        ("utf-8;jörg@x", "utf-8;j\\x{F6}rg@x"),
        ("utf-8;用户+tag@x", "utf-8;\\x{7528}\\x{6237}\\x{2B}tag@x"),
        ("utf-8;\\x{2B}é@x", "utf-8;\\x{2B}\\x{E9}@x"),
        ('utf-8;"a\\"é"@x', 'utf-8;"a\\x{5C}"\\x{E9}"@x'),
        ("utf-8;📧@x", "utf-8;\\x{1F4E7}@x"),
    ],
)
def test_orcpt_where_utf8_may_not_be_sent(orcpt: str, in_ascii: str) -> None:
    """RFC 6533 3: utf-8-addr-unitext becomes utf-8-addr-xtext."""
    parameters = f" NOTIFY=NEVER ORCPT={orcpt}"
    assert on_the_wire(parameters, smtputf8=True) == parameters.encode()
    assert on_the_wire(parameters, smtputf8=False) == f" NOTIFY=NEVER ORCPT={in_ascii}".encode("ascii")


def test_an_orcpt_that_grows_too_long_is_left_out() -> None:
    long = "utf-8;" + "ü" * 60 + "@" + "ü" * 60 + ".example"
    assert on_the_wire(f" NOTIFY=DELAY ORCPT={long}", smtputf8=False) == b" NOTIFY=DELAY"


def test_eight_bit_is_told_by_the_content() -> None:
    assert b" BODY=8BITMIME" in mail(UTF8_BODY)[0]
    assert b" BODY=" not in mail(body_type=BodyType.EIGHT_BIT_MIME)[0]
    assert compose(envelope(UTF8_BODY), "mx.example").objection(EVERYTHING) is None


def test_eight_bit_where_it_is_not_taken() -> None:
    objection = compose(envelope(UTF8_BODY), "mx.example").objection(NOTHING)
    assert objection is not None
    assert objection.enhanced_code == "5.6.3"


def test_smtputf8_only_where_it_is_needed() -> None:
    assert b" SMTPUTF8" in mail(UTF8_HEADER, smtputf8=True)[0]
    assert b" SMTPUTF8" in mail(reverse_path="jörg@sender.example", smtputf8=True)[0]
    assert b" SMTPUTF8" not in mail(UTF8_BODY, smtputf8=True)[0]
    message = compose(envelope(UTF8_BODY), "mx.example")
    assert message.mail_command(EVERYTHING, utf8_recipient=True).endswith(b" SMTPUTF8")


@pytest.mark.parametrize("options", [{"body": UTF8_HEADER}, {"reverse_path": "jörg@sender.example"}])
def test_smtputf8_where_it_is_not_taken(options: dict[str, object]) -> None:
    message = compose(envelope(smtputf8=True, **options), "mx.example")  # type: ignore[arg-type]
    objection = message.objection(Capabilities(eight_bit_mime=True))
    assert objection is not None
    assert objection.enhanced_code == "5.6.7"


def test_too_large() -> None:
    message = compose(envelope(b"A: b\r\n\r\n" + b"x" * 70 + b"\r\n"), "mx.example")
    assert message.objection(Capabilities(size=True, size_bytes=message.size_bytes)) is None
    objection = message.objection(Capabilities(size=True, size_bytes=message.size_bytes - 1))
    assert objection is not None
    assert objection.enhanced_code == "5.3.4"


def test_size_is_what_the_server_will_count() -> None:
    message = compose(envelope(b"A: b\r\n\r\n.dot\r\n"), "mx.example")
    assert message.data.endswith(b"\r\n..dot\r\n.\r\n")
    assert message.size_bytes == len(message.data) - len(b".\r\n") - 1


def test_a_body_that_is_not_clean_is_not_sent() -> None:
    with pytest.raises(UnfitForWire):
        compose(envelope(b"A: b\n\nc\r\n"), "mx.example")


def test_the_trace_field() -> None:
    moment = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    sent = envelope(received_at=moment)
    assert received_field(sent, "mx.example") == (
        b"Received: from client.example ([192.0.2.7])\r\n"
        b"\tby mx.example with ESMTPSA id " + str(sent.id).encode() + b";\r\n"
        b"\tMon, 04 May 2026 03:02:01 +0000\r\n"
    )


@pytest.mark.parametrize(
    ("address", "literal"),
    [
        ("192.0.2.7", b"([192.0.2.7])"),
        ("[2001:db8::1]:99", b"([IPv6:2001:db8::1])"),
        ("2001:db8::1", b"([IPv6:2001:db8::1])"),
        ("", b"(unknown)"),
        ("x\r\ny", b"(unknown)"),
    ],
)
def test_the_address_in_the_trace(address: str, literal: bytes) -> None:
    made = envelope()
    field = received_field(
        type(made)(**{name: getattr(made, name) for name in made.__slots__} | {"client_address": address}), "mx.example"
    )
    assert literal in field


def test_a_helo_cannot_add_a_header() -> None:
    made = envelope()
    field = received_field(
        type(made)(**{name: getattr(made, name) for name in made.__slots__} | {"helo": "a\r\nBcc: x@y (\xe9"}),
        "mx.example",
    )
    assert field.count(b"\r\n") == 3
    assert b"Bcc: x" not in field


def changed(**values: object) -> Envelope:
    return replace(envelope(), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tls", "smtputf8", "protocol"),
    [(True, False, b"ESMTPSA"), (True, True, b"UTF8SMTPSA"), (False, False, b"ESMTP"), (False, True, b"UTF8SMTP")],
)
def test_how_it_came(tls: bool, smtputf8: bool, protocol: bytes) -> None:
    assert b" with %s id " % protocol in received_field(changed(tls=tls, smtputf8=smtputf8), "mx.example")


@pytest.mark.parametrize("hide", [False, True])
def test_the_cipher_suite_is_a_clause_of_its_own(hide: bool) -> None:
    """RFC 8314 4.3; behind the id (RFC 5321 4.4)."""
    sent = changed(tls_suite="TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")
    field = received_field(sent, "mx.example", hide_client=hide)
    clause = b" id " + str(sent.id).encode() + b"\r\n\ttls TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;\r\n\t"
    assert field.count(clause) == 1
    assert b"tls" not in received_field(changed(tls=False, tls_suite=None), "mx.example")


@pytest.mark.parametrize(
    ("hostname", "domain"),
    [("mx.example", b"mx.example"), ("192.0.2.1", b"[192.0.2.1]"), ("::1", b"[IPv6:::1]"), ("[::1]", b"[::1]")],
)
def test_our_name_in_the_trace(hostname: str, domain: bytes) -> None:
    assert b"\tby %s with " % domain in received_field(envelope(), hostname)


def test_the_client_can_be_left_out_of_the_trace() -> None:
    moment = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    sent = envelope(received_at=moment)
    field = received_field(sent, "mx.example", hide_client=True)
    assert field == (
        b"Received: by mx.example with ESMTPSA id "
        + str(sent.id).encode()
        + b";\r\n\tMon, 04 May 2026 03:02:01 +0000\r\n"
    )
    message = compose(sent, "mx.example", hide_client=True)
    assert message.data.startswith(field)
    assert message.size_bytes == len(field) + len(sent.body)


@pytest.mark.parametrize("value", ["show", "hide"])
def test_the_setting_reaches_the_route(value: str) -> None:
    settings = Settings.load({"received_client_address": value, "smarthost_tls": "none"}, {})
    assert smarthost(settings).hide_client is (value == "hide")


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (250, Outcome.DELIVERED),
        (251, Outcome.DELIVERED),
        (354, Outcome.DEFERRED),
        (421, Outcome.DEFERRED),
        (450, Outcome.DEFERRED),
        (550, Outcome.REFUSED),
        (552, Outcome.REFUSED),
        (530, Outcome.DEFERRED),
        (535, Outcome.DEFERRED),
    ],
)
def test_outcomes(code: int, outcome: Outcome) -> None:
    assert outcome_of(code) is outcome


def test_a_result_holds_what_the_server_said() -> None:
    result = from_reply(3, Reply(550, [b"5.1.1 nobody", b"5.1.1 here"]), "mx.example:25")
    assert (result.number, result.reply_code, result.enhanced_code) == (3, 550, "5.1.1")
    assert (result.reply_text, result.remote) == ("nobody here", "mx.example:25")


def test_ehlo() -> None:
    lines = [
        b"mx greets you",
        b"PIPELINING",
        b"size 1000",
        b"AUTH PLAIN LOGIN",
        b"AUTH=CRAM-MD5",
        b"8bitmime",
        b"dsn",
        b"",
        b"X\xff",
    ]
    assert read_ehlo(Reply(250, lines)) == Capabilities(
        pipelining=True,
        eight_bit_mime=True,
        dsn=True,
        size=True,
        size_bytes=1000,
        auth=frozenset({"PLAIN", "LOGIN", "CRAM-MD5"}),
    )
    assert read_ehlo(Reply(250, [b"PIPELINING"])) == NOTHING, "the first line is a name"
    assert read_ehlo(Reply(250, [b"x", b"SIZE 9" + b"9" * 40])).size_bytes == 0
