"""Why a server's certificate was not trusted, and what the certificate says about itself.

Used after a failed verification only (REQ-INFRA-CLIENT-006). The certificate comes from a second
handshake that verifies nothing and sends nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from smtp_proxy_client.dial import Dialer
from smtp_proxy_client.errors import CertificateRejected, ClientError
from smtp_proxy_client.pins import pin_of
from smtp_proxy_client.reply import printable

# OpenSSL x509_vfy.h, X509_V_ERR_*: what it means, and what to do about it.
TRUST_HINT = "--ca-file FILE trusts the CA that issued it"
REASONS = {
    2: ("unknown issuer", TRUST_HINT),
    9: ("not yet valid", "check the clocks of both machines"),
    10: ("expired", "renew the certificate on the server"),
    18: ("self-signed", "--ca-file FILE with this certificate in it trusts it"),
    19: ("self-signed certificate in the chain: its CA is not trusted", TRUST_HINT),
    20: ("unknown issuer", TRUST_HINT),
    21: ("unknown issuer", TRUST_HINT),
    62: ("hostname mismatch", "connect by a name it holds, or say which with --server-name"),
    64: ("IP address mismatch", "connect by a name it holds, or say which with --server-name"),
}
INSECURE_HINT = "--insecure skips verification (tests only)"


def explain(dialer: Dialer, error: CertificateRejected) -> str:
    """The whole story on one screen."""
    meaning, step = REASONS.get(error.verify_code, (error.reason, TRUST_HINT))
    lines = [
        f"the certificate of {dialer.target} was not trusted: {meaning}",
        f"  OpenSSL says   {error.reason} (code {error.verify_code})",
        f"  asked for      {dialer.target.expected_name}",
    ]
    try:
        facts = dict(describe(dialer.unverified_certificate(), datetime.now(UTC)))
    except ClientError as second:
        facts = {"details": f"not available, a second handshake failed: {second.text}"}
    lines += [f"  {name:<14} {printable(value)}" for name, value in facts.items()]
    return "\n".join([*lines, f"next step: {step}; {INSECURE_HINT}"])


def describe(der: bytes, now: datetime) -> Iterator[tuple[str, str]]:
    """The facts of one certificate, in the order in which they are read."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        yield "subject", certificate.subject.rfc4514_string() or "(empty)"
        yield "issuer", certificate.issuer.rfc4514_string() or "(empty)"
        yield "names", ", ".join(alternative_names(certificate)) or "(none)"
        yield "not before", moment(certificate.not_valid_before_utc, now, ahead="valid in")
        yield "not after", moment(certificate.not_valid_after_utc, now, behind="expired")
    except (ValueError, x509.InvalidVersion) as error:
        certificate = None
        yield "unreadable", str(error)
    yield "SHA-256", hashlib.sha256(der).digest().hex(":").upper()
    if certificate is not None:
        yield "SPKI SHA-256", key_fingerprint(certificate)
        yield "pin", pin_of(der)


def alternative_names(certificate: x509.Certificate) -> list[str]:
    """The names a client may compare with; the subject's common name is not one of them."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    names = extension.value.get_values_for_type(x509.DNSName)
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return [*names, *map(str, addresses)]


def moment(then: datetime, now: datetime, *, ahead: str = "", behind: str = "") -> str:
    """A time, with its distance from now where that is the trouble."""
    shown = then.strftime("%Y-%m-%d %H:%M:%S UTC")
    if behind and then < now:
        return f"{shown} ({behind} {days(now - then)} ago)"
    if ahead and then > now:
        return f"{shown} ({ahead} {days(then - now)})"
    return shown


def days(distance: timedelta) -> str:
    """A distance in whole days, or in hours below one."""
    seconds = int(distance.total_seconds())
    count, unit = (seconds // 86400, "day") if seconds >= 86400 else (seconds // 3600, "hour")
    return f"{count} {unit}{'' if count == 1 else 's'}"


def key_fingerprint(certificate: x509.Certificate) -> str:
    """The public key's SHA-256 in base64, as pins are written (RFC 7469 2.4)."""
    try:
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        return "(unknown kind of key)"
    return base64.b64encode(hashlib.sha256(key).digest()).decode()
