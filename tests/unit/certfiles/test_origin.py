"""REQ-INFRA-TLS-008, REQ-INFRA-TLS-009: what is for development does not serve in production."""

from __future__ import annotations

from pathlib import Path

import pytest
from certificates import Authority
from cryptography import x509

from smtp_proxy.certfiles.origin import refuse_in_production
from smtp_proxy.certs.selfsigned import ensure_server_certificate
from smtp_proxy.errors import CertificateProblem


@pytest.mark.parametrize("with_ca", [False, True])
def test_the_development_ca_is_refused(tmp_path: Path, with_ca: bool) -> None:
    files = ensure_server_certificate(tmp_path / "tls", ["localhost"])
    chain = files.certificate_file.read_bytes() + (files.ca_file.read_bytes() if with_ca else b"")
    with pytest.raises(CertificateProblem, match=r"^TLS_CERT_FILE: it is by the CA of .*set SMTP_PROXY_MODE="):
        refuse_in_production(chain, "TLS_CERT_FILE")


def test_a_self_signed_one_is_refused(tmp_path: Path) -> None:
    chain = Authority(tmp_path).ca_file.read_bytes()
    with pytest.raises(CertificateProblem, match=r"^x: it is self-signed, and SMTP_PROXY_MODE is production: put one"):
        refuse_in_production(chain, "x")


def test_a_private_ca_will_do_and_its_root_may_be_in_the_chain(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.pair(tmp_path / "a", "a.example")
    chain = (tmp_path / "a" / "fullchain.pem").read_bytes()
    whole = chain + authority.ca_file.read_bytes()
    assert [len(x509.load_pem_x509_certificates(pem)) for pem in (chain, whole)] == [1, 2], "both can be read"
    refuse_in_production(chain, "x")
    refuse_in_production(whole, "x")
    with pytest.raises(CertificateProblem, match="self-signed"):
        refuse_in_production(authority.ca_file.read_bytes() + chain, "x")


def test_what_can_not_be_read_is_left_to_the_core() -> None:
    broken = b"-----BEGIN CERTIFICATE-----\nMIIB"
    with pytest.raises(ValueError, match="PEM"):
        x509.load_pem_x509_certificates(broken)
    refuse_in_production(broken, "x")
