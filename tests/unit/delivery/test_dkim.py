"""DKIM: the published vectors of RFC 6376 and RFC 8463, and what an independent verifier says (dkimpy)."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.delivery import dkim

RSA = dkim.SigningKey("example.com", "r1", generate_private_key(65537, 2048))
ED25519 = dkim.SigningKey("example.com", "e1", Ed25519PrivateKey.generate())
MESSAGE = (
    b"Received: from a by b; Thu, 26 Nov 2026 02:00:00 +0000\r\n"
    b"From: Joe <joe@example.com>\r\nTo: sue@rcpt.example,\r\n\t bob@rcpt.example\r\nSubject:  two   words \r\n"
    b"Date: Thu, 26 Nov 2026 02:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n"
    b"List-Unsubscribe: <https://example.com/u?1>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    b"\r\nHello.\r\n.dot \t line\r\n\r\nbye  \r\n\r\n\r\n"
)


def record_of(key: dkim.SigningKey) -> bytes:
    kind = key.algorithm.partition("-")[0]
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo) if kind == "rsa" else (Encoding.Raw, PublicFormat.Raw)
    return f"v=DKIM1; k={kind}; p={base64.b64encode(key.private.public_key().public_bytes(*form)).decode()}".encode()


def dns_of(*keys: dkim.SigningKey) -> Callable[..., bytes | None]:
    records = {f"{k.selector}._domainkey.{k.domain}.".encode(): record_of(k) for k in keys}
    return lambda name, timeout=5: records.get(name)


def verified(message: bytes, *keys: dkim.SigningKey) -> list[bool]:
    return [_verified(message, n, dns_of(*keys)) for n in range(len(keys))]


def _verified(message: bytes, index: int, dns: Callable[..., bytes | None]) -> bool:
    try:
        return bool(dkimpy.DKIM(message, minkey=1024).verify(idx=index, dnsfunc=dns))
    except dkimpy.ValidationError:
        return False


def test_the_canonical_header_of_rfc_6376_section_3_4_5() -> None:
    fields = dkim.header_fields(b"A: X\r\nB : Y\t\r\n\tZ  \r\n")
    assert [canonical for _, canonical in fields] == [b"a:X", b"b:Y Z"]


def test_the_canonical_body_of_rfc_6376_section_3_4_5() -> None:
    assert dkim.hash_body(b" C \r\nD \t E\r\n\r\n\r\n") == hashlib.sha256(b" C\r\nD E\r\n").digest()


@pytest.mark.parametrize("body", [b"", b"\r\n", b"\r\n\r\n", b" \t\r\n \r\n"])
def test_an_empty_body_is_hashed_as_nothing(body: bytes) -> None:
    # RFC 6376 3.4.4: the SHA-256 of a body without text, as it is printed there.
    assert base64.b64encode(dkim.hash_body(body)) == b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


def test_the_message_of_rfc_8463_appendix_a() -> None:
    """Same key, message and time: the very signature that is printed there, which covers other fields than ours."""
    private = Ed25519PrivateKey.from_private_bytes(base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="))
    key = dkim.SigningKey("football.example.com", "brisbane", private)
    header = (
        b"From: Joe SixPack <joe@football.example.com>\r\nTo: Suzie Q <suzie@shopping.example.net>\r\n"
        b"Subject: Is dinner ready?\r\nDate: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"
        b"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n"
    )
    body = b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
    assert base64.b64encode(dkim.hash_body(body)) == b"2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="
    by_name = dict(dkim.header_fields(header))
    names = b"from : to : subject : date : message-id : from : subject : date".split(b" : ")
    covered = b"".join(by_name.pop(name) + b"\r\n" for name in names if name in by_name)
    tags = (
        b" v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n d=football.example.com; i=@football.example.com;\r\n"
        b" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n"
        b" subject : date : message-id : from : subject : date;\r\n"
        b" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b="
    )
    _, unsigned = dkim.canonical_field(b"DKIM-Signature", tags)
    assert base64.b64encode(key.sign(covered + unsigned)) == (
        b"/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw=="
    )


def test_both_signatures_are_good() -> None:
    signed = dkim.sign(MESSAGE, [RSA, ED25519], 1_790_000_000) + MESSAGE
    assert verified(signed, RSA, ED25519) == [True, True]
    assert max(map(len, signed.split(b"\r\n"))) <= 78


def test_what_was_signed_can_not_be_changed_nor_added_to() -> None:
    signed = dkim.sign(MESSAGE, [ED25519], 1) + MESSAGE
    assert verified(signed, ED25519) == [True]
    for before, after in (
        (b"Hello.", b"Hallo."),
        (b"From: Joe", b"From: Eve"),
        (b"<https://example.com/u?1>", b"<https://evil.example/>"),
        (b"Date:", b"From: eve@evil.example\r\nDate:"),
        (b"Date:", b"Subject: another\r\nDate:"),
        (b"Date:", b"Reply-To: eve@evil.example\r\nDate:"),
        (b"Date:", b"Content-Type: text/html\r\nDate:"),
    ):
        assert verified(signed.replace(before, after, 1), ED25519) == [False], (before, after)


def test_a_provider_that_replaces_date_and_message_id_breaks_no_signature_without_them() -> None:
    """As Amazon SES does; a signature that covers them fails from there on."""
    dated = MESSAGE.replace(b"Date:", b"Message-ID: <1@example.com>\r\nDate:", 1)
    for left_out, good in ((dkim.REPLACED, True), (frozenset(), False)):
        signed = dkim.sign(dated, [RSA], 1, leaving_out=left_out) + dated
        assert verified(signed, RSA) == [True]
        passed_on = signed.replace(b"<1@example.com>", b"<2@email.amazonses.com>", 1)
        passed_on = re.sub(rb"\r\nDate: [^\r]*", b"\r\nDate: Fri, 27 Nov 2026 10:00:00 +0000", passed_on, count=1)
        assert passed_on.count(b"2@email") == passed_on.count(b"27 Nov 2026") == 1
        assert verified(passed_on, RSA) == [good]


def test_relays_on_the_way_break_nothing() -> None:
    signed = dkim.sign(MESSAGE, [ED25519], 1) + MESSAGE
    on_top = b"ARC-Seal: i=1; a=x\r\nAuthentication-Results: b.example; dkim=pass\r\nReceived: by c\r\n"
    assert verified(on_top + signed, ED25519) == [True]
    assert verified(signed.replace(b"two   words ", b"two words", 1), ED25519) == [True]
    assert verified(signed.replace(b"Date:", b"List-Id: <l.example>\r\nDate:", 1), ED25519) == [True]


def test_fields_of_arc_and_earlier_signatures_are_left_alone() -> None:
    sealed = (
        b"ARC-Seal: i=1; a=rsa-sha256; d=a.example; s=x; b=AA==\r\nARC-Message-Signature: i=1; b=AA==\r\n"
        b"ARC-Authentication-Results: i=1; a.example; spf=pass\r\nDKIM-Signature: v=1; d=a.example; b=AA==\r\n"
        b"Authentication-Results: a.example; dkim=pass\r\n"
    )
    header = dkim.sign(sealed + MESSAGE, [RSA], 1)
    (field,) = [canonical for name, canonical in dkim.header_fields(header) if name == b"dkim-signature"]
    tags = dict(tag.strip().partition(b"=")[::2] for tag in field.partition(b":")[2].split(b";"))
    names = [name.strip() for name in tags[b"h"].split(b":")]
    assert not {
        n for n in names if n.startswith(b"arc-") or n in (b"dkim-signature", b"authentication-results", b"received")
    }
    assert names.count(b"from") == 2
    assert {b"list-unsubscribe", b"list-unsubscribe-post"} <= set(names)
    assert verified(header + sealed + MESSAGE, RSA) == [True]


def test_repr_shows_no_key() -> None:
    assert repr(RSA) == "SigningKey(domain='example.com', selector='r1')"


LINES = st.lists(st.text(st.sampled_from(" \tab.é"), max_size=8).map(str.encode), max_size=8)


@given(LINES, st.booleans())
def test_any_body_verifies(lines: list[bytes], ended: bool) -> None:
    message = b"From: a@example.com\r\n\r\n" + b"\r\n".join(lines) + (b"\r\n" if ended else b"")
    signed = dkim.sign(message, [ED25519], 1) + message
    assert verified(signed if signed.endswith(b"\r\n") else signed + b"\r\n", ED25519) == [True]


@given(st.lists(st.sampled_from([b" ", b"  ", b"\t", b"x", b"\r\n"]), max_size=60))
def test_pieces_change_no_hash(parts: list[bytes]) -> None:
    body = b"".join(parts)
    whole = dkim.hash_body(body)
    saved, dkim._PIECE_BYTES = dkim._PIECE_BYTES, 3  # type: ignore[misc]
    try:
        assert dkim.hash_body(body) == whole
    finally:
        dkim._PIECE_BYTES = saved  # type: ignore[misc]
