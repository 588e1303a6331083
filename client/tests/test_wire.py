"""Any bytes a server sends are replies or an error of ours, however they are cut, and never more than a bound."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy_client.errors import ClientError, TlsFailed
from smtp_proxy_client.reply import Reply
from smtp_proxy_client.wire import MAX_REPLY_LINE_BYTES, MAX_REPLY_LINES, Wire

TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Pieces:
    """A socket from which these pieces come, and then the end."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = [piece for piece in pieces if piece]

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0

    def recv(self, size: int) -> bytes:
        return self.pieces.pop(0)[:size] if self.pieces else b""


def replies(*pieces: bytes) -> list[object]:
    """All replies, and the kind of error at the end."""
    wire, found = Wire(Pieces(*pieces), 5.0), []
    while True:
        try:
            found.append(wire.read_reply())
        except ClientError as error:
            return [*found, type(error)]


raws = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from([b"250", b"250-", b" ok", b"\r\n", b"\n", b"\r", b"421 ", b"\0", b"\xff", b"2\xb25", b"-"]),
        max_size=20,
    ).map(b"".join),
)


@given(raws, st.data())
def test_any_cut_gives_the_same_replies(raw: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert replies(*pieces) == replies(raw)


@given(raws)
def test_what_is_shown_is_printable(raw: bytes) -> None:
    for reply in replies(raw)[:-1]:
        assert isinstance(reply, Reply)
        assert reply.text.isprintable()
        assert 0 <= reply.code <= 999
        assert not (reply.is_positive and reply.is_temporary)


def test_nothing_goes_without_bounds() -> None:
    line = b"x" * 10_000
    sock = Pieces(b"250 ", *[line] * 1000)
    with pytest.raises(ClientError):
        Wire(sock, 5.0).read_reply()
    assert 1000 - len(sock.pieces) <= MAX_REPLY_LINE_BYTES // len(line) + 2
    sock = Pieces(*[b"250-and so on\r\n"] * 10_000)
    with pytest.raises(ClientError):
        Wire(sock, 5.0).read_reply()
    assert 10_000 - len(sock.pieces) <= MAX_REPLY_LINES


@given(st.binary(min_size=1, max_size=60))
def test_nothing_said_in_clear_is_taken_for_said_under_tls(injected: bytes) -> None:
    wire = Wire(Pieces(b"220 go\r\n" + injected), 5.0)
    assert wire.read_reply().code == 220
    with pytest.raises(TlsFailed):
        wire.start_tls(TLS, "localhost")
