"""DANE for SMTP (RFC 7672): the host's key is in DNS, and DNSSEC vouches for it; no CA is asked.

Usable records are DANE-EE(3) and DANE-TA(2). Where a host has TLSA records of which none is usable, TLS is a must and
nobody is authenticated (RFC 7672 2.2). Where DNS does not answer, the host is not asked (2.1.2).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smtp_proxy.delivery.mx.resolver import Answer

TRUST_ANCHOR: Final = 2  # RFC 7218 2.1: DANE-TA
END_ENTITY: Final = 3  # DANE-EE
_DIGESTS: Final = {1: hashlib.sha256, 2: hashlib.sha512}


@dataclass(frozen=True, slots=True)
class Tlsa:
    """One TLSA record (RFC 6698 2.1). `selector` 0: the certificate, 1: its public key; `matching` 0: as it is."""

    usage: int
    selector: int
    matching: int
    data: bytes

    @property
    def usable(self) -> bool:
        """RFC 7672 3.1.3: the other usages are of no use to SMTP."""
        lengths = {1: 32, 2: 64}
        known = self.usage in (TRUST_ANCHOR, END_ENTITY) and self.selector in (0, 1) and self.matching in (0, 1, 2)
        return known and len(self.data) == lengths.get(self.matching, len(self.data))

    def matches(self, certificate: x509.Certificate) -> bool:
        """Whether it speaks of this certificate."""
        if self.selector == 0:
            content = certificate.public_bytes(Encoding.DER)
        else:
            content = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digest = _DIGESTS.get(self.matching)
        return self.data == (digest(content).digest() if digest else content)


def read_tlsa(answer: Answer) -> tuple[Tlsa, ...]:
    """The records of an answer, in a settled order."""
    found = {Tlsa(r.usage, r.selector, r.mtype, bytes(r.cert)) for r in answer.records}  # type: ignore[attr-defined]
    return tuple(sorted(found, key=lambda tlsa: (tlsa.usage, tlsa.selector, tlsa.matching, tlsa.data)))


def trouble(records: Sequence[Tlsa], chain: Sequence[bytes], names: Sequence[str]) -> str | None:
    """Why the certificates that a server has shown (DER, its own first) will not do; None: they will.

    `names`: those that a certificate below a trust anchor may have (RFC 7672 3.2.2).
    """
    try:
        shown = [x509.load_der_x509_certificate(der) for der in chain]
    except ValueError as error:
        return f"DANE: the server's certificate can not be read: {error}"
    if not shown:
        return "DANE: the server has shown no certificate"
    # RFC 7672 3.1.1: of DANE-EE neither the name nor the dates are looked at.
    if any(record.usage == END_ENTITY and record.matches(shown[0]) for record in records):
        return None
    anchors = [c for r in records if r.usage == TRUST_ANCHOR for c in shown[1:] if r.matches(c)]
    anchors += _in_full(records)
    if any(_verifies(shown, anchor, name) for anchor in anchors for name in names):
        return None
    return "DANE: the server's certificate is not the one that its TLSA records speak of"


def _in_full(records: Sequence[Tlsa]) -> list[x509.Certificate]:
    """Trust anchors that are in DNS as they are (2 0 0), and so need not be shown."""
    found = []
    for record in records:
        if (record.usage, record.selector, record.matching) == (TRUST_ANCHOR, 0, 0):
            try:
                found.append(x509.load_der_x509_certificate(record.data))
            except ValueError:
                continue
    return found


def _verifies(shown: Sequence[x509.Certificate], anchor: x509.Certificate, name: str) -> bool:
    try:
        PolicyBuilder().store(Store([anchor])).build_server_verifier(x509.DNSName(name)).verify(
            shown[0], list(shown[1:])
        )
    except (VerificationError, ValueError):
        return False
    return True
