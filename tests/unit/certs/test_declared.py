"""What ACME_CERTIFICATES may say."""

from __future__ import annotations

import pytest

from smtp_proxy.certs.declared import declared
from smtp_proxy.certs.issuer import PRODUCTION, STAGING, directory_of
from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError


def test_several() -> None:
    orders = declared("mx=MX.example.com,mail.example.com. *.example.com other.example@dns-01 bücher.example")
    assert [(o.name, o.names, o.challenge, o.declared_by) for o in orders] == [
        ("mx", ("mx.example.com", "mail.example.com"), "http-01", "file"),
        ("_.example.com", ("*.example.com",), "dns-01", "file"),
        ("other.example", ("other.example",), "dns-01", "file"),
        ("xn--bcher-kva.example", ("xn--bcher-kva.example",), "http-01", "file"),
    ]
    assert declared("") == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("localhost", "no DNS name"),
        ("192.0.2.1", "no DNS name"),
        ("a..example", "no DNS name"),
        ("*.*.example.com", "no DNS name"),
        ("*.example.com@http-01", "needs dns-01"),
        ("mx.example.com@tls-alpn-01", "write http-01 or dns-01"),
        ("mx= b.example", "no name is given"),
        ("../x=mx.example.com", "certificate name"),
        ("mx=a.example mx=b.example", "there twice"),
    ],
)
def test_what_can_not_be(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"ACME_CERTIFICATES: .*{reason}"):
        declared(text)


def test_which_ca() -> None:
    """REQ-INFRA-TLS-008: Let's Encrypt in production; development does not use up its limits."""
    assert directory_of(Settings(mode="production")) == PRODUCTION
    assert directory_of(Settings()) == STAGING
    assert directory_of(Settings(acme_directory="https://ca.example/dir")) == "https://ca.example/dir"
    with pytest.raises(ConfigurationError, match="SMTP_PROXY_MODE=production"):
        directory_of(Settings(acme_directory=PRODUCTION))
