"""Public key pins: the next hop must show one of the keys that we know, whatever a CA says.

A pin is sha256/ and the base64 of the SHA-256 of the SubjectPublicKeyInfo (RFC 7469 2.4). Only the server's own
certificate is looked at, not its chain: Python 3.11 shows us no more, and a pinned CA would be no better than a file of
CAs for this next hop alone. The chain and the name are verified all the same.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet


def read_pins(text: str) -> frozenset[str]:
    """The pins of a setting, which has checked their form; commas between them."""
    return frozenset(filter(None, (part.strip() for part in text.split(","))))


def pin_of(certificate: bytes) -> str:
    """The pin of a certificate (DER). Raises ValueError when it can not be read."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256/" + base64.b64encode(hashlib.sha256(info).digest()).decode()


def trouble(pins: AbstractSet[str], certificate: bytes | None, setting: str) -> str | None:
    """Why this certificate (DER) will not do; None: it will, or there are no pins. `setting` has them."""
    if not pins:
        return None
    try:
        shown = pin_of(certificate or b"")
    except ValueError as error:
        return f"TLS: the server's certificate can not be read, so its public key is no pinned one: {error}"
    if shown in pins:
        return None
    return f"TLS: the server's public key is {shown}, which {setting} does not name"
