"""Do chain, key, names and dates of a certificate go together? Asked before it takes the place of one that serves.

Not here: whether clients trust its CA (docs/CERTIFICATES.md), and what the core asks of it in addition.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from smtp_proxy.errors import CertificateProblem

_CLOCKS_DIFFER: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Checked:
    """What a good certificate says of itself."""

    names: tuple[str, ...]  # lower case; DNS names, then addresses
    not_before: datetime
    not_after: datetime


def check(chain: bytes, key: bytes, names: Iterable[str], now: datetime, label: str) -> Checked:
    """Look at a PEM chain, its PEM key and the names that it must be good for; `label` is named in errors.

    Raises:
        CertificateProblem: says what is wrong; never shows the key.
    """
    certificates = _read_chain(chain, label)
    leaf = certificates[0]
    _key_fits(leaf, key, label)
    for issued, issuer in pairwise(certificates):
        try:
            issued.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            subject, by = issued.subject.rfc4514_string(), issuer.subject.rfc4514_string()
            raise CertificateProblem(f"{label}: the chain is broken: {subject!r} is not signed by {by!r}") from None
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if begins > now + _CLOCKS_DIFFER:
        raise CertificateProblem(f"{label}: it is not valid before {begins:%Y-%m-%d %H:%M:%SZ}: is the clock right?")
    if ends <= now:
        raise CertificateProblem(f"{label}: it expired at {ends:%Y-%m-%d %H:%M:%SZ}")
    present = _names(leaf)
    missing = sorted({name.lower() for name in names} - set(present))
    if missing:
        raise CertificateProblem(
            f"{label}: it is not for {', '.join(missing)} but for {', '.join(present) or 'nobody'}"
        )
    return Checked(present, begins, ends)


def _read_chain(chain: bytes, label: str) -> list[x509.Certificate]:
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError:
        certificates = []
    if not certificates:
        raise CertificateProblem(f"{label}: it holds no PEM certificate, or half of one")
    return certificates


def _key_fits(leaf: x509.Certificate, key: bytes, label: str) -> None:
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError):
        raise CertificateProblem(f"{label}: the key is no unencrypted PEM key") from None
    if private.public_key() != leaf.public_key():
        raise CertificateProblem(f"{label}: the key is not that of the certificate")


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    dns = (name.lower() for name in names.get_values_for_type(x509.DNSName))
    return (*dns, *(str(address) for address in names.get_values_for_type(x509.IPAddress)))
