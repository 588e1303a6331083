"""Is an OCSP response one to staple (RFC 6960, RFC 6066 8)? Else it is left off: a client takes none for a bad one.

Looked at: that it succeeded, is about this certificate (serial number, and its issuer where that is in the chain), says
"good", and is fresh. The signature of what was fetched is looked at by `ocsp_fetch`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.x509 import ocsp

if TYPE_CHECKING:
    from datetime import datetime

_CLOCKS_DIFFER: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Staple:
    """What goes with a certificate."""

    response: bytes = b""  # DER; empty: nothing
    until: datetime | None = None  # no longer fresh from then on
    renew_at: datetime | None = None  # half of its life has passed
    refused: str = ""  # why a response that is there is left off


def staple(response: bytes, chain: bytes, now: datetime) -> Staple:
    """Look at a response (DER; empty: there is none) for the first certificate of a PEM chain."""
    if not response:
        return Staple()
    try:
        read = ocsp.load_der_ocsp_response(response)
        certificates = x509.load_pem_x509_certificates(chain)
        single, trouble = _judge(read, certificates, now)
    except (ValueError, IndexError, TypeError) as error:
        return Staple(refused=f"it can not be read: {error}")
    if single is None or (until := single.next_update_utc) is None:
        return Staple(refused=trouble)
    return Staple(response, until, single.this_update_utc + (until - single.this_update_utc) / 2)


def _judge(
    response: ocsp.OCSPResponse, chain: list[x509.Certificate], now: datetime
) -> tuple[ocsp.OCSPSingleResponse | None, str]:
    """What it says of the certificate, or why it is not to be stapled."""
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return None, f"the responder answered {response.response_status.name.lower()}"
    single = next((each for each in response.responses if _is_about(each, chain)), None)
    if single is None:
        return None, "it is about another certificate"
    if single.certificate_status is not ocsp.OCSPCertStatus.GOOD:
        return None, f"it says that the certificate is {single.certificate_status.name.lower()}"
    if single.this_update_utc > now + _CLOCKS_DIFFER:
        return None, f"it is of {single.this_update_utc:%Y-%m-%d %H:%M:%SZ}, which is still to come"
    until = single.next_update_utc
    # RFC 6960 4.2.2.1: without it newer information is there at any time, so it can not be kept.
    if until is None or until <= now:
        when = "none" if until is None else f"{until:%Y-%m-%d %H:%M:%SZ}"
        return None, f"it is not fresh: its next update is {when}"
    return single, ""


def _is_about(single: ocsp.OCSPSingleResponse, chain: list[x509.Certificate]) -> bool:
    leaf = chain[0]
    if single.serial_number != leaf.serial_number:
        return False
    issuer = next((each for each in chain[1:] if each.subject == leaf.issuer), None)
    if issuer is None:
        return True
    asked = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, single.hash_algorithm).build()
    return (asked.issuer_key_hash, asked.issuer_name_hash) == (single.issuer_key_hash, single.issuer_name_hash)
