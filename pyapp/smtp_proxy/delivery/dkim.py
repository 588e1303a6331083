"""DKIM signatures (RFC 6376, RFC 8463), relaxed/relaxed. Pure but for the key's own arithmetic.

What is signed is what goes on the wire: the transport adds fields above the signature's reach (Received, which no
signature covers) and ends the last line, which the canonical form does too. Fields that others put there on the way
(ARC-*, DKIM-Signature, Authentication-Results, Received, Return-Path) are neither signed nor touched.

A field in `OVERSIGNED` is named once more than it occurs, so that nobody can add another one below the signature's
eyes (RFC 6376 8.15).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from smtp_proxy.delivery.wire import header_of

PrivateKey: TypeAlias = RSAPrivateKey | Ed25519PrivateKey

# RFC 6376 5.4.1, and what shows or changes how a message is shown (MIME).
OVERSIGNED: Final = (
    b"from", b"reply-to", b"subject", b"date", b"to", b"cc", b"message-id", b"in-reply-to", b"references",
    b"mime-version", b"content-type", b"content-transfer-encoding",
)  # fmt: skip
# Signed where they are. Lists that pass the message on add some of these, which must not break what they leave alone.
# RFC 8058 4 asks for List-Unsubscribe and List-Unsubscribe-Post to be covered.
SIGNED: Final = (
    b"sender", b"resent-from", b"resent-sender", b"resent-to", b"resent-cc", b"resent-date", b"resent-message-id",
    b"content-id", b"content-description", b"content-disposition", b"list-id", b"list-help", b"list-subscribe",
    b"list-unsubscribe", b"list-unsubscribe-post", b"list-post", b"list-owner", b"list-archive", b"feedback-id",
    b"auto-submitted", b"precedence",
)  # fmt: skip
# What a provider puts its own in the place of, SES above all: a signature over it would break there.
REPLACED: Final = frozenset({b"message-id", b"date"})
_WSP_RUN: Final = re.compile(rb"[ \t]{2,}|\t")
_FOLDS: Final = re.compile(rb"[ \t\r\n]+")
# Bytes hashed in one go; between two of them other tasks have their turn when this runs in a thread.
_PIECE_BYTES: Final = 64 * 1024
_LINE_CHARS: Final = 70


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key and where its public half is found: SELECTOR._domainkey.DOMAIN."""

    domain: str  # A-labels
    selector: str
    private: PrivateKey = field(repr=False)

    @property
    def algorithm(self) -> str:
        """As in the a= tag (RFC 6376 3.3, RFC 8463 3)."""
        return "rsa-sha256" if isinstance(self.private, RSAPrivateKey) else "ed25519-sha256"

    def sign(self, data: bytes) -> bytes:
        """Sign what was made of the header fields."""
        if isinstance(self.private, RSAPrivateKey):
            return self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self.private.sign(hashlib.sha256(data).digest())  # RFC 8463 3: PureEdDSA over the SHA-256 hash


def sign(
    message: bytes, keys: Sequence[SigningKey], timestamp: int, *, leaving_out: AbstractSet[bytes] = frozenset()
) -> bytes:
    """Return one DKIM-Signature field for each key, ready to be put on top of `message`.

    Args:
        message: CRLF lines, dots unstuffed, as `Envelope.body`.
        keys: one signature each.
        timestamp: seconds since 1970, for the t= tag.
        leaving_out: names of fields that are not to be covered, in lower case.
    """
    header = header_of(message)
    fields = header_fields(header)
    names = signed_names([name for name, _ in fields], leaving_out)
    covered = _covered(fields, names)
    body_hash = base64.b64encode(hash_body(message[len(header) + 2 :]))
    return b"".join(_signature(key, names, covered, body_hash, timestamp) for key in keys)


def header_fields(header: bytes) -> list[tuple[bytes, bytes]]:
    """Name in lower case and canonical form, without CRLF, of each field from the top on (RFC 6376 3.4.2)."""
    found: list[list[bytes]] = []
    for line in header.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            if found:
                found[-1].append(line)
        elif line:
            found.append([line])
    split = (b"".join(lines).partition(b":") for lines in found)
    return [canonical_field(name, value) for name, colon, value in split if colon]


def canonical_field(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """RFC 6376 3.4.2, as the name and the whole field."""
    name = name.strip(b" \t").lower()
    return name, name + b":" + _FOLDS.sub(b" ", value).strip(b" ")


def signed_names(present: Sequence[bytes], leaving_out: AbstractSet[bytes] = frozenset()) -> list[bytes]:
    """The h= tag: each wanted field as often as it occurs, those in `OVERSIGNED` once more."""
    counts = Counter(present)
    over = [name for name in OVERSIGNED if name not in leaving_out for _ in range(counts[name] + 1)]
    return over + [name for name in SIGNED if name not in leaving_out for _ in range(counts[name])]


def hash_body(body: bytes) -> bytes:
    """SHA-256 of the body in relaxed form (RFC 6376 3.4.4, 3.7)."""
    digest = hashlib.sha256()
    line_ends = 0  # empty lines that may be the last ones, which do not count
    any_text = False
    for piece in _pieces(body):
        canonical = _relaxed(piece)
        text = canonical.rstrip(b"\r\n")
        if text:
            digest.update(b"\r\n" * line_ends + text)
            any_text, line_ends = True, 0
        line_ends += (len(canonical) - len(text)) // 2
    if any_text:
        digest.update(b"\r\n")
    return digest.digest()


# -- below


def _covered(fields: Sequence[tuple[bytes, bytes]], names: Sequence[bytes]) -> bytes:
    """What h= names, from the bottom of the message up (RFC 6376 5.4.2); one that is not there adds nothing."""
    by_name: dict[bytes, list[bytes]] = {}
    for name, canonical in fields:
        by_name.setdefault(name, []).append(canonical)
    taken = (by_name[name].pop() for name in names if by_name.get(name))
    return b"".join(canonical + b"\r\n" for canonical in taken)


def _signature(key: SigningKey, names: Sequence[bytes], covered: bytes, body_hash: bytes, timestamp: int) -> bytes:
    tags = b" v=1; a=%b; c=relaxed/relaxed; d=%b;\r\n\ts=%b; t=%d;\r\n\th=%b;\r\n\tbh=%b;\r\n\tb=" % (
        key.algorithm.encode(),
        key.domain.encode(),
        key.selector.encode(),
        timestamp,
        _listed(names),
        body_hash,
    )
    _, unsigned = canonical_field(b"DKIM-Signature", tags)
    value = base64.b64encode(key.sign(covered + unsigned))
    folded = b"\r\n\t ".join(value[at : at + _LINE_CHARS] for at in range(0, len(value), _LINE_CHARS))
    return b"DKIM-Signature:" + tags + folded + b"\r\n"


def _listed(names: Sequence[bytes]) -> bytes:
    """Join with colons, folded: a line may not be too long for relays that are strict (RFC 5322 2.1.1)."""
    lines = [b""]
    for place, name in enumerate(names):
        word = name + (b":" if place < len(names) - 1 else b"")
        if len(lines[-1]) + len(word) > _LINE_CHARS:
            lines.append(b"")
        lines[-1] += word
    return b"\r\n\t ".join(lines)


def _pieces(body: bytes) -> Iterator[bytes]:
    """Whole lines, about so many bytes at once."""
    at = 0
    while at < len(body):
        end = body.find(b"\r\n", at + _PIECE_BYTES)
        end = len(body) if end < 0 else end + 2
        yield body[at:end]
        at = end


def _relaxed(text: bytes) -> bytes:
    """Runs of blanks are one, and none stand at a line's end; most mail is that way already."""
    if b"\t" in text or b"  " in text:
        text = _WSP_RUN.sub(b" ", text)
    if b" \r\n" in text:
        text = text.replace(b" \r\n", b"\r\n")
    return text.removesuffix(b" ")
