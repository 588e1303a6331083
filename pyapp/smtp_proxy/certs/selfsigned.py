"""A CA of one's own and a server certificate by it, for `smtp-proxy dev` and for trying things out.

ECDSA P-256, which every TLS 1.2 client knows. Keys are readable by their owner alone (0600). What is there is kept as
long as it serves: the same names, both certificates good for another month, signed by the CA beside it.

Not here: certificates that strangers trust.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from smtp_proxy.certfiles.origin import DEVELOPMENT_CA
from smtp_proxy.clock import Clock, SystemClock
from smtp_proxy.errors import CertificateProblem

# This machine, and what a Compose file calls the service.
DEVELOPMENT_NAMES = ("localhost", "127.0.0.1", "::1", "smtp", "smtp-server")

_CA_LIFE = timedelta(days=3650)
# Apple's clients refuse server certificates that live longer than 825 days, private CA or not.
_SERVER_LIFE = timedelta(days=397)
_RENEW_BEFORE = timedelta(days=30)
_CLOCKS_DIFFER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files: the CA's certificate, the server's certificate, its key."""

    ca_file: Path
    certificate_file: Path
    key_file: Path


@dataclass(frozen=True, slots=True)
class _Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure_server_certificate(directory: Path, names: Sequence[str], clock: Clock | None = None) -> CertificateFiles:
    """Make what is missing or about to expire in `directory`; `names` are DNS names and IP addresses.

    Raises:
        CertificateProblem: names the file that can not be read or written.
    """
    now = (clock or SystemClock()).now()
    files = CertificateFiles(directory / "ca.pem", directory / "server.pem", directory / "server-key.pem")
    ca_key_file = directory / "ca-key.pem"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority = _usable(_load(files.ca_file, ca_key_file), now)
        if authority is None:
            authority = _make_authority(now)
            _save(authority, files.ca_file, ca_key_file)
        server = _usable(_load(files.certificate_file, files.key_file), now)
        if server is None or not _serves(server.certificate, names, authority.certificate):
            _save(_make_server(names, authority, now), files.certificate_file, files.key_file)
    except OSError as error:
        raise CertificateProblem(f"{error.filename or directory}: {error.strerror}") from None
    return files


# -- what is there


def _load(certificate_file: Path, key_file: Path) -> _Pair | None:
    """None: missing, or not what we would have written."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        return None
    return _Pair(certificate, key)


def _usable(pair: _Pair | None, now: datetime) -> _Pair | None:
    if pair is None:
        return None
    certificate = pair.certificate
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return pair if begins <= now and now + _RENEW_BEFORE < ends else None


def _serves(certificate: x509.Certificate, names: Sequence[str], authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
        present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return set(present) == {_general_name(name) for name in names}


# -- making


def _make_authority(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # A serial number in the name, so that a trust store does not confuse two of them.
    name = _name(f"{DEVELOPMENT_CA} {x509.random_serial_number() % 2**32:08x}")
    builder = (
        _builder(name, name, key, now, _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _Pair(builder.sign(key, hashes.SHA256()), key)


def _make_server(names: Sequence[str], authority: _Pair, now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    life = min(_SERVER_LIFE, issuer.not_valid_after_utc - now)
    builder = (
        _builder(_name(names[0][:64]), issuer.subject, key, now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(list(map(_general_name, names))), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    return _Pair(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + life)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


# -- writing


def _save(pair: _Pair, certificate_file: Path, key_file: Path) -> None:
    """Write the key first: a certificate without its key is made anew, so a crash in between does no harm."""
    key = pair.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(key_file, key, 0o600)
    _write(certificate_file, pair.certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _write(file: Path, content: bytes, mode: int) -> None:
    """Put the file in place whole, with its mode from the start."""
    part = file.with_name(f".{file.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
    part.chmod(mode)
    part.replace(file)
