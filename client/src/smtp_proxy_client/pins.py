"""Public key pins: sha256/ and the base64 of the SHA-256 of the SubjectPublicKeyInfo (RFC 7469 2.4).

Only the server's own certificate is compared, since Python's ssl shows no more of the chain.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from smtp_proxy_client.errors import PinMismatch, UsageError

PIN = re.compile(r"sha256/[A-Za-z0-9+/]{43}=", re.ASCII)


def checked(pins: Sequence[str]) -> tuple[str, ...]:
    """The pins, if they are. Raises UsageError."""
    for pin in pins:
        if not PIN.fullmatch(pin):
            raise UsageError(f"--pin: {pin!r} is none", hint="write sha256/ and 44 characters of base64")
    return tuple(pins)


def pin_of(certificate: bytes) -> str:
    """The pin of a certificate (DER); in brackets why there is none."""
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
        info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm) as error:
        return f"(none: {error})"
    return "sha256/" + base64.b64encode(hashlib.sha256(info).digest()).decode()


def check(pins: Sequence[str], certificate: bytes | None) -> None:
    """Raise PinMismatch unless one of the pins, if there are any, is the certificate's."""
    shown = pin_of(certificate or b"")
    if pins and shown not in pins:
        raise PinMismatch(
            f"the server's public key is not pinned: it shows {shown}",
            hint=f"if that is the right server, its new pin is --pin {shown}",
        )
