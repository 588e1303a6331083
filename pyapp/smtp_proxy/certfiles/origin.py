"""Where a certificate comes from: what serves in production is by a CA, and not by the one of `smtp-proxy dev`.

A private CA of the operator is one. Whether clients trust it is theirs to say.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from smtp_proxy.errors import CertificateProblem

DEVELOPMENT_CA: Final = "smtp-proxy dev CA"  # How the common name of each begins.
_NEXT_STEP: Final = "put one of a CA there (`smtp-proxy serve certs` gets them), or set SMTP_PROXY_MODE=development"


def refuse_in_production(chain: bytes, label: str) -> None:
    """Look at the certificates of a PEM chain; `label` names settings and files in errors (REQ-INFRA-TLS-008, -009).

    What can not be read is not refused here: the core says what is wrong with it.

    Raises CertificateProblem: the server's certificate is self-signed, or the CA of `smtp-proxy dev` is in the chain.
    """
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError:
        return
    if any(_by_development_ca(each) for each in certificates):
        raise CertificateProblem(
            f"{label}: it is by the CA of `smtp-proxy dev`, and SMTP_PROXY_MODE is production: {_NEXT_STEP}"
        )
    if _is_self_signed(certificates[0]):
        raise CertificateProblem(f"{label}: it is self-signed, and SMTP_PROXY_MODE is production: {_NEXT_STEP}")


# -- below


def _by_development_ca(certificate: x509.Certificate) -> bool:
    names = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return any(str(name.value).startswith(f"{DEVELOPMENT_CA} ") for name in names)


def _is_self_signed(certificate: x509.Certificate) -> bool:
    """By its signature: anybody may be called like his CA."""
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
