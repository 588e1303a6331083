"""A throw-away CA and server certificates, good and bad, for tests of TLS."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID


class Authority:
    """Issues certificates and writes them below `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        now = datetime.now(UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(_usage(sign=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, *names: str, days: int = 1) -> ssl.SSLContext:
        """A server context with a certificate for these names (or addresses); `days` < 0: expired."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.issue(*names, days=days))
        return context

    def pair(
        self,
        folder: Path,
        *names: str,
        days: int = 1,
        responder: str = "",
        must_staple: bool = False,
        purpose: x509.ObjectIdentifier | None = None,
    ) -> x509.Certificate:
        """`fullchain.pem` and `privkey.pem` in a folder, as ACME clients leave them; what is there is replaced.

        With a `responder` (URL) the CA is in the chain. `purpose`: what it is for and nothing else (RFC 5280 4.2.1.12).
        """
        folder.mkdir(parents=True, exist_ok=True)
        file = self.issue(*names, days=days, responder=responder, must_staple=must_staple, purpose=purpose)
        both = file.read_bytes()
        at = both.index(b"-----BEGIN PRIVATE KEY")
        chain = both[:at] + (self.certificate_pem if responder else b"")
        for name, content in (("privkey.pem", both[at:]), ("fullchain.pem", chain)):
            part = folder / f".{name}"
            part.write_bytes(content)
            part.replace(folder / name)
        return x509.load_pem_x509_certificate(both)

    def revoke(self, *revoked: x509.Certificate) -> bytes:
        """A revocation list, PEM."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - timedelta(hours=1))
            .next_update(now + timedelta(days=1))
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def ocsp(
        self,
        certificate: x509.Certificate,
        *,
        status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
        begins: timedelta = timedelta(hours=-1),
        lasts: timedelta | None = timedelta(days=1),
        delegate: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None,
    ) -> bytes:
        """A response about the certificate, DER; `delegate`: who signs it, and sends its certificate along."""
        this_update = datetime.now(UTC) + begins
        revoked_at = this_update if status is ocsp.OCSPCertStatus.REVOKED else None
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=certificate,
            issuer=self._certificate,
            algorithm=hashes.SHA1(),
            cert_status=status,
            this_update=this_update,
            next_update=None if lasts is None else this_update + lasts,
            revocation_time=revoked_at,
            revocation_reason=None,
        )
        signer, key = (self._certificate, self._key) if delegate is None else delegate
        if delegate is not None:
            builder = builder.certificates([signer])
        signed = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer).sign(key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.DER)

    def responder(self, *, may_sign: bool = True) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """One that signs responses for this CA (RFC 6960 4.2.2.2), if it may."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        usage = ExtendedKeyUsageOID.OCSP_SIGNING if may_sign else ExtendedKeyUsageOID.SERVER_AUTH
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "responder")]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256()), key

    @property
    def certificate_pem(self) -> bytes:
        return self.ca_file.read_bytes()

    def issue(
        self,
        *names: str,
        days: int = 1,
        responder: str = "",
        must_staple: bool = False,
        purpose: x509.ObjectIdentifier | None = None,
    ) -> Path:
        """A file with a certificate for these names, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=10))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if responder:
            where = x509.AccessDescription(
                AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(responder)
            )
            builder = builder.add_extension(x509.AuthorityInformationAccess([where]), critical=False)
        if purpose is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if must_staple:
            builder = builder.add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        file = self.directory / f"{names[0]}-{certificate.serial_number}.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return file


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=sign,
        encipher_only=False,
        decipher_only=False,
    )
