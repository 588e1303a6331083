"""What goes on the wire: stuffed, ended, and never with a bare CR or LF."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.delivery.wire import UnfitForWire, header_of, path_bytes, transmitted

lines = st.lists(st.binary(max_size=20).filter(lambda raw: not set(raw) & set(b"\r\n\0")), max_size=12)
dotted = st.lists(st.sampled_from([b"", b".", b"..", b"...", b"a", b".a", b"a."]), max_size=12)


def sent(body: bytes) -> bytes:
    return transmitted(b"", body)[0]


def received(wire: bytes) -> bytes:
    """What a server makes of it (RFC 5321 4.5.2), and that it stops exactly at the end."""
    body = b""
    rest = wire
    while True:
        line, separator, rest = rest.partition(b"\r\n")
        assert separator, "the data never ends"
        if line == b".":
            assert rest == b"", "the data ends too early"
            return body
        body += line.removeprefix(b".") + b"\r\n"


@given(st.one_of(lines, dotted))
def test_stuffing_is_undone_by_the_server(parts: list[bytes]) -> None:
    body = b"".join(part + b"\r\n" for part in parts)
    assert received(sent(body)) == body


@given(st.binary(max_size=300))
def test_what_is_told_of_any_body(body: bytes) -> None:
    """By another way of looking: what is refused, and whether it is ASCII; and the trace stays as it is."""
    rest = body.replace(b"\r\n", b"")
    if b"\r" in rest or b"\n" in rest or b"\0" in rest:
        with pytest.raises(UnfitForWire):
            transmitted(b"T: x\r\n", body)
        return
    data, is_ascii = transmitted(b"T: x\r\n.\r\n", body)
    assert data.startswith(b"T: x\r\n.\r\n")
    assert is_ascii == body.isascii()


def test_a_large_body_is_sent_the_same_way() -> None:
    line = b".dotted\r\nplain\r\n"
    assert sent(line * 40_000) == b"..dotted\r\nplain\r\n" * 40_000 + b".\r\n"
    with pytest.raises(UnfitForWire):
        sent(line * 40_000 + b"\n")


def test_a_last_line_without_end_gets_one() -> None:
    assert sent(b"a\r\nb") == b"a\r\nb\r\n.\r\n"
    assert sent(b".") == b"..\r\n.\r\n"
    assert sent(b"") == b".\r\n"


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"."]), max_size=12).map(b"".join))
def test_bare_line_ends_never_leave(body: bytes) -> None:
    bare = re.search(rb"\r(?!\n)|(?<!\r)\n", body) is not None
    if bare:
        with pytest.raises(UnfitForWire, match="bare CR or LF"):
            sent(body)
    else:
        sent(body)


# The end-of-data sequences that one server or another has taken for the end (SMTP smuggling, SEC Consult 2023).
@pytest.mark.parametrize(
    "sequence", [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r\n\x00.\r\n\n", b"\r\r\n.\r\n"]
)
def test_no_smuggling(sequence: bytes) -> None:
    with pytest.raises(UnfitForWire):
        sent(b"a\r\n" + sequence + b"MAIL FROM:<x@y>\r\n")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a@b.example",
        '"a b"@c.example',
        '"a>b"@c.example',
        r'"a\"b"@c.example',
        "jörg@bücher.example",
        "a@[IPv6:::1]",
        "postmaster",
    ],
)
def test_addresses_that_may_be_sent(address: str) -> None:
    assert path_bytes(address, "5.1.3") == address.encode()


@pytest.mark.parametrize(
    "address",
    [
        "a@b\r\nRCPT TO:<c@d>",
        "a@b\nDATA",
        "a@b\r",
        "a@b\x00c",
        "a@b> SIZE=1",
        "a@b>",
        "<a@b",
        "a b@c",
        "a@b\t",
        '"a\r\nb"@c',
        '"a@b',
        "a\\>b@c",
        "\x7f@b",
        "\ud800@b",
        "x" * 2000,
    ],
)
def test_addresses_that_may_not(address: str) -> None:
    with pytest.raises(UnfitForWire) as raised:
        path_bytes(address, "5.1.3")
    assert raised.value.enhanced_code == "5.1.3"


@given(st.text())
def test_no_address_ever_brings_a_line_end(address: str) -> None:
    try:
        sent = path_bytes(address, "5.1.3")
    except UnfitForWire:
        return
    assert not set(sent) & set(b"\r\n\x00")
    assert sent.count(b">") == 0 or b'"' in sent


@pytest.mark.parametrize(
    ("body", "header"),
    [
        (b"A: b\r\n\r\ntext\r\n", b"A: b\r\n"),
        (b"\r\ntext\r\n", b""),
        (b"A: b\r\n", b"A: b\r\n"),
    ],
)
def test_header_of(body: bytes, header: bytes) -> None:
    assert header_of(body) == header
