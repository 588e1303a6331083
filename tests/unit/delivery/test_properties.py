"""What holds for any envelope and any server's words on the way out."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from mail import envelope
from naive_servers import check_wire

from smtp_proxy.delivery.capabilities import Capabilities, read_ehlo
from smtp_proxy.delivery.classify import from_reply
from smtp_proxy.delivery.message import compose
from smtp_proxy.delivery.reply import MalformedReply, ReplyParser
from smtp_proxy.delivery.trace import received_field
from smtp_proxy.delivery.wire import UnfitForWire, path_bytes
from smtp_proxy.model.attempt import Outcome

pieces = st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"..", b"\0", b"a", b": ", b"\xc3\xa9", b"\xff", b"\r\n.\r\n"])
bodies = st.one_of(
    st.lists(pieces, max_size=20).map(b"".join),
    st.lists(st.sampled_from([b"", b".", b"..", b".a", b"A: b", b"\xc3\xa9"]), max_size=12).map(
        lambda lines: b"".join(line + b"\r\n" for line in lines)
    ),
)
addresses = st.one_of(
    st.text(max_size=40),
    st.text('ab@."<>\\ \r\n\0é\x7f[]:', max_size=30),
    st.from_regex(r'("[^"\\\r\n]{0,8}"|[a-z]{1,8})@[a-z]{1,8}\.example', fullmatch=True),
)
capabilities = st.builds(
    Capabilities, st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 500)
)


def check_code(reason: UnfitForWire, code: str) -> None:
    assert reason.enhanced_code == code


@given(bodies, st.booleans())
def test_a_body_leaves_whole_and_clean_or_not_at_all(body: bytes, smtputf8: bool) -> None:
    try:
        message = compose(envelope(body, smtputf8=smtputf8), "mx.example")
    except UnfitForWire as reason:
        check_code(reason, "5.6.0")
        assert re.search(rb"\r(?!\n)|(?<!\r)\n|\0", body)
        return
    check_wire(b"DATA\r\n" + message.data)
    _, _, sent = message.data.partition(b"+0000\r\n")
    received = re.sub(rb"(^|\r\n)\.", rb"\1", sent.removesuffix(b".\r\n"))
    assert received == body + b"\r\n" * (bool(body) and not body.endswith(b"\r\n"))
    assert len(message.data) - message.size_bytes >= 3


@given(addresses, bodies, capabilities, st.booleans())
def test_mail_is_one_line_and_says_no_more_than_the_server_knows(
    address: str, body: bytes, server: Capabilities, utf8_recipient: bool
) -> None:
    try:
        message = compose(envelope(body, reverse_path=address, smtputf8=True), "mx.example")
    except UnfitForWire:
        return
    line = message.mail_command(server, utf8_recipient=utf8_recipient)
    assert line.startswith(b"MAIL FROM:<" + address.encode() + b">")
    assert not set(line) & set(b"\r\n\0")
    parameters = line[len(b"MAIL FROM:<>" + address.encode()) :].split()
    assert {word.partition(b"=")[0] for word in parameters} <= {
        word
        for word, known in [(b"SIZE", server.size), (b"BODY", server.eight_bit_mime), (b"SMTPUTF8", server.smtputf8)]
        if known
    }
    objection = message.objection(server)
    if objection is not None:
        assert objection.enhanced_code in {"5.3.4", "5.6.3", "5.6.7"}


@given(addresses)
def test_a_path_is_one_argument(address: str) -> None:
    """Read as RFC 5321 4.1.2 has it: outside of a quoted string there is no bracket and no blank."""
    try:
        sent = path_bytes(address, "5.1.3").decode()
    except UnfitForWire as reason:
        check_code(reason, "5.1.3")
        return
    assert sent == address
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', "", sent)
    assert not set(outside) & set('<> "\\\r\n\0')
    assert sent.isprintable() or not sent.isascii()


@given(st.text(max_size=60), st.text("[]:.0123456789abcdef\r\n ", max_size=40), st.booleans(), st.booleans())
def test_the_trace_field_is_one_field(helo: str, address: str, tls: bool, smtputf8: bool) -> None:
    made = dataclasses.replace(
        envelope(received_at=datetime(2026, 1, 2, tzinfo=UTC), smtputf8=smtputf8),
        helo=helo,
        client_address=address,
        tls=tls,
    )
    field = received_field(made, "mx.example")
    first, *folded, end = field.split(b"\r\n")
    assert first.startswith(b"Received: from ")
    assert len(folded) == 2
    assert all(line.startswith(b"\t") for line in folded)
    assert end == b""
    assert field.isascii()
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", field)
    assert all(len(line) <= 998 for line in (first, *folded))


lines = st.lists(st.binary(max_size=60).filter(lambda raw: b"\n" not in raw), min_size=1, max_size=6)


def parsed(code: int, said: list[bytes]) -> ReplyParser:
    raw = [b"%d%s%s\n" % (code, b" " if n == len(said) else b"-", line) for n, line in enumerate(said, 1)]
    parser = ReplyParser()
    parser.feed(b"".join(raw))
    return parser


@given(st.integers(200, 599), lines)
def test_a_result_holds_clean_text_and_a_code_that_fits(code: int, said: list[bytes]) -> None:
    (reply,) = parsed(code, said).replies
    result = from_reply(1, reply, "mx.example:25")
    assert result.reply_text.replace("\ufffd", "").isprintable() or not result.reply_text.isascii()
    assert "\0" not in result.reply_text
    assert len(result.reply_text) <= 1000
    result.reply_text.encode()
    assert result.enhanced_code == "" or result.enhanced_code.startswith(f"{code // 100}.")
    assert (result.outcome is Outcome.DELIVERED) == (200 <= code <= 299)
    assert result.outcome is not Outcome.REFUSED or 500 <= code <= 599


@given(lines)
def test_any_answer_to_ehlo_is_understood(said: list[bytes]) -> None:
    (reply,) = parsed(250, said).replies
    found = read_ehlo(reply)
    assert 0 <= found.size_bytes < 10**15
    assert found.size or not found.size_bytes


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_a_parser_is_at_rest_or_holds_something(data: list[bytes]) -> None:
    parser = ReplyParser()
    try:
        for piece in data:
            parser.feed(piece)
    except MalformedReply:
        return
    whole = b"".join(data)
    assert parser.at_rest == (whole == b"")
    assert len(parser.replies) <= whole.count(b"\n")
