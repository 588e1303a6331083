"""Replies: any split of the bytes gives the same replies, and nothing a server sends goes without bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.delivery.reply import LINE_BYTES, REPLY_LINES, MalformedReply, ReplyParser, printable


def parse(*pieces: bytes) -> list[tuple[int, list[bytes]]]:
    parser = ReplyParser()
    for piece in pieces:
        parser.feed(piece)
    return [(reply.code, reply.lines) for reply in parser.replies]


texts = st.binary(max_size=60).filter(lambda raw: b"\n" not in raw and not raw.endswith(b"\r"))
replies = st.tuples(st.integers(200, 599), st.lists(texts, min_size=1, max_size=5))


def encoded(code: int, lines: list[bytes]) -> bytes:
    head = [b"%d-%s\r\n" % (code, line) for line in lines[:-1]]
    return b"".join(head) + b"%d %s\r\n" % (code, lines[-1])


@given(st.lists(replies, max_size=6), st.data())
def test_any_split_gives_the_same_replies(wanted: list[tuple[int, list[bytes]]], data: st.DataObject) -> None:
    raw = b"".join(encoded(code, lines) for code, lines in wanted)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert parse(*pieces) == wanted


@given(st.binary(max_size=400), st.integers(1, 400))
def test_garbage_is_replies_or_malformed_however_it_is_cut(raw: bytes, cut: int) -> None:
    def outcome(*pieces: bytes) -> object:
        try:
            return parse(*pieces)
        except MalformedReply:
            return MalformedReply

    assert outcome(raw) == outcome(raw[:cut], raw[cut:])


@pytest.mark.parametrize(
    ("raw", "code", "enhanced", "text"),
    [
        (b"250 2.1.5 ok\r\n", 250, "2.1.5", "ok"),
        (b"250\r\n", 250, "", ""),
        (b"250 \r\n", 250, "", ""),
        (b"250 ok\n", 250, "", "ok"),
        (b"550-5.1.1 no such\r\n550 5.1.1 user here\r\n", 550, "5.1.1", "no such user here"),
        (b"550 2.1.5 contradicts\r\n", 550, "", "contradicts"),
        (b"451 4.7.1\r\n", 451, "4.7.1", ""),
        (b"250 1.2.3.4 is an address\r\n", 250, "", "1.2.3.4 is an address"),
        (b"550 5.1.1 caf\xc3\xa9 \xff \x1b[31m\x00\r\n", 550, "5.1.1", "café \ufffd [31m"),
    ],
)
def test_what_a_reply_says(raw: bytes, code: int, enhanced: str, text: str) -> None:
    parser = ReplyParser()
    parser.feed(raw)
    (reply,) = parser.replies
    assert (reply.code, reply.enhanced_code, reply.text) == (code, enhanced, text)
    parser.replies.clear()
    assert parser.at_rest


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n",
        b"25\r\n",
        b"250+no\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\x16\x03\x01\x02\n",
        b"199 too low\r\n",
        b"600 too high\r\n",
        b"250-one\r\n251 two\r\n",
        b"\xc2\xb250 not ascii digits\r\n",
    ],
)
def test_what_is_no_reply(raw: bytes) -> None:
    with pytest.raises(MalformedReply):
        parse(raw)


def test_a_line_without_end_is_bounded() -> None:
    parser = ReplyParser()
    parser.feed(b"2" * LINE_BYTES)
    with pytest.raises(MalformedReply):
        parser.feed(b"2")
    with pytest.raises(MalformedReply):
        parse(b"250 " + b"x" * LINE_BYTES + b"\r\n")


def test_a_reply_without_end_is_bounded() -> None:
    with pytest.raises(MalformedReply):
        parse(b"250-more\r\n" * (REPLY_LINES + 1))
    assert len(parse(b"250-more\r\n" * (REPLY_LINES - 1) + b"250 done\r\n")[0][1]) == REPLY_LINES


def test_printable_is_bounded() -> None:
    assert len(printable(b"x" * 5000)) == 1000
