"""The CA of `smtp-proxy dev` and its server certificate: kept while they serve, made anew when they do not."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from smtp_proxy.certs.selfsigned import CertificateFiles, ensure_server_certificate
from smtp_proxy.clock import ManualClock
from smtp_proxy.errors import CertificateProblem

NAMES = ["localhost", "127.0.0.1", "::1"]


def shake_hands(files: CertificateFiles, name: str) -> str:
    """A TLS handshake in memory, verified as a client does; returns the protocol's version."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate_file, files.key_file)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    client = ssl.create_default_context(cafile=files.ca_file)
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(5):
        for side in (asking, serving):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return str(asking.version())


@pytest.fixture
def now() -> ManualClock:
    return ManualClock(datetime.now(UTC))


@pytest.mark.parametrize("name", NAMES)
def test_clients_verify_it(tmp_path: Path, name: str) -> None:
    assert shake_hands(ensure_server_certificate(tmp_path, NAMES), name) == "TLSv1.3"


def test_another_name_is_refused(tmp_path: Path) -> None:
    files = ensure_server_certificate(tmp_path, NAMES)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"mail\.example\.com"):
        shake_hands(files, "mail.example.com")


def test_keys_are_the_owners_alone(tmp_path: Path) -> None:
    ensure_server_certificate(tmp_path / "tls", NAMES)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "tls").iterdir()}
    assert modes == {"ca.pem": 0o644, "ca-key.pem": 0o600, "server.pem": 0o644, "server-key.pem": 0o600}
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700


def test_what_serves_is_kept(tmp_path: Path, now: ManualClock) -> None:
    files = ensure_server_certificate(tmp_path, NAMES, now)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    now.advance(timedelta(days=360).total_seconds())
    assert ensure_server_certificate(tmp_path, NAMES, now) == files
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_before_it_expires_the_server_gets_another_from_the_same_ca(tmp_path: Path, now: ManualClock) -> None:
    """REQ-INFRA-TLS-010, for the certificate of development: 30 days before its end."""
    files = ensure_server_certificate(tmp_path, NAMES, now)
    authority, server = files.ca_file.read_bytes(), files.certificate_file.read_bytes()
    now.advance(timedelta(days=368).total_seconds())
    ensure_server_certificate(tmp_path, NAMES, now)
    assert files.ca_file.read_bytes() == authority
    assert files.certificate_file.read_bytes() != server
    renewed = x509.load_pem_x509_certificate(files.certificate_file.read_bytes())
    assert renewed.not_valid_after_utc > now.now() + timedelta(days=396)


@pytest.mark.parametrize("lost", ["ca.pem", "ca-key.pem", "server.pem", "server-key.pem"])
def test_what_is_missing_or_damaged_is_made_anew(tmp_path: Path, lost: str) -> None:
    for damage in (lambda file: file.unlink(), lambda file: file.write_text("no PEM")):
        files = ensure_server_certificate(tmp_path, NAMES)
        damage(tmp_path / lost)
        assert ensure_server_certificate(tmp_path, NAMES) == files
        assert shake_hands(files, "localhost") == "TLSv1.3"


def test_other_names_need_another_certificate(tmp_path: Path) -> None:
    files = ensure_server_certificate(tmp_path, NAMES)
    ensure_server_certificate(tmp_path, [*NAMES, "mail.example.com"])
    assert shake_hands(files, "mail.example.com") == "TLSv1.3"


def test_a_key_that_is_not_the_certificates_is_replaced(tmp_path: Path) -> None:
    files = ensure_server_certificate(tmp_path, NAMES)
    (tmp_path / "server-key.pem").write_bytes((tmp_path / "ca-key.pem").read_bytes())
    ensure_server_certificate(tmp_path, NAMES)
    assert shake_hands(files, "localhost") == "TLSv1.3"


def test_it_is_as_clients_demand(tmp_path: Path, now: ManualClock) -> None:
    """ECDSA P-256; a leaf, for servers, not longer than 825 days."""
    files = ensure_server_certificate(tmp_path, NAMES, now)
    leaf = x509.load_pem_x509_certificate(files.certificate_file.read_bytes())
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc < timedelta(days=825)


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CertificateProblem, match="file/tls"):
        ensure_server_certificate(tmp_path / "file" / "tls", NAMES)
