"""Certificates that an operator brings (`certs import`) or takes along (`certs export`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from smtp_proxy.certfiles.canary import try_out
from smtp_proxy.certfiles.check import Checked, check
from smtp_proxy.certfiles.files import check_directory, folder_name, write_certificate, write_copy
from smtp_proxy.certfiles.origin import refuse_in_production
from smtp_proxy.errors import CertificateProblem, ConfigurationError
from smtp_proxy.model.certificate import StoredCertificate
from smtp_proxy.sealing import Sealed
from smtp_proxy.store.ids import new_id

if TYPE_CHECKING:
    from datetime import datetime

    from smtp_proxy.config import Settings
    from smtp_proxy.sealing import SecretKeys

_NOTHING: Final = Sealed("", b"")


def check_imported(settings: Settings, chain: bytes, key: bytes, now: datetime) -> Checked:
    """Look at a PEM chain and its PEM key before they go anywhere. Raises CertificateProblem."""
    label = "--chain, --key"
    good = check(chain, key, (), now, label)
    if not good.names:
        raise CertificateProblem(f"{label}: it is for nobody: get one with a subjectAltName")
    if settings.mode == "production":
        refuse_in_production(chain, label)
    try_out(chain, key, label)
    return good


def sealed_for_store(
    name: str, good: Checked, chain: bytes, key: bytes, keys: SecretKeys, now: datetime
) -> StoredCertificate:
    """What was checked, as the store keeps it: the key is PKCS #8 and sealed. Raises as `SecretKeys.seal`."""
    made = StoredCertificate(
        new_id(now), folder_name(name), good.names, _plain(chain), _NOTHING, good.not_before, good.not_after
    )
    return replace(made, sealed=keys.seal(_pkcs8(key), made.context))


def write_imported(settings: Settings, name: str, chain: bytes, key: bytes) -> Path:
    """Put what was checked into TLS_CERT_DIR; returns its folder. Raises ConfigurationError, CertificateProblem."""
    directory = settings.tls_cert_dir
    if directory is None:
        raise ConfigurationError("TLS_CERT_DIR is not set: say where certificates are, or set TLS_CERT_SOURCE=store")
    check_directory(directory)
    write_certificate(directory, name, chain, key)
    return directory / folder_name(name)


def write_exported(out: Path, certificate: StoredCertificate, keys: SecretKeys | None) -> list[Path]:
    """Write `fullchain.pem` (0644), and with `keys` `privkey.pem` (0600), into `out`; returns what was written.

    Raises CertificateProblem, and ConfigurationError when its key does not open.
    """
    key = None if keys is None else keys.open(certificate.sealed, certificate.context)
    return write_copy(out, certificate.chain.encode(), key)


def _plain(chain: bytes) -> str:
    """Without what people write between the certificates, in whatever encoding."""
    certificates = x509.load_pem_x509_certificates(chain)
    return "".join(each.public_bytes(serialization.Encoding.PEM).decode("ascii") for each in certificates)


def _pkcs8(key: bytes) -> bytes:
    return serialization.load_pem_private_key(key, password=None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
