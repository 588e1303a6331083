"""Certificates that do not verify, and what the client tells about them."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def fingerprints(issued) -> tuple[str, str]:
    der = issued.certificate.public_bytes(Encoding.DER)
    key = issued.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest().hex(":").upper(), base64.b64encode(hashlib.sha256(key).digest()).decode()


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_expired_certificate(serve, client, authority, tls):
    """REQ-INFRA-CLIENT-006: the reason, for how long, and all that identifies the certificate."""
    issued = authority.issue("localhost", "127.0.0.1", days=(-90, -12))
    server = serve(tls, issued=issued)
    ran = client("send", *server.options("--tls", tls, "--ca-file", authority.ca_file))
    assert ran.code == 4
    whole, key = fingerprints(issued)
    after = issued.certificate.not_valid_after_utc.strftime("%Y-%m-%d %H:%M:%S UTC")
    before = issued.certificate.not_valid_before_utc.strftime("%Y-%m-%d %H:%M:%S UTC")
    for part in (
        "was not trusted: expired",
        "subject        CN=localhost",
        "issuer         CN=Test Root",
        "names          localhost, 127.0.0.1",
        f"not before     {before}\n",
        f"not after      {after} (expired 11 days ago)",
        f"SHA-256        {whole}",
        f"SPKI SHA-256   {key}",
        "renew the certificate",
        "--insecure",
    ):
        assert part in ran.err
    assert server.mailbox.envelopes == []


def test_certificate_of_tomorrow(serve, client, authority):
    """REQ-INFRA-CLIENT-006: a certificate that is not yet valid."""
    server = serve(issued=authority.issue("127.0.0.1", days=(3, 30)))
    ran = client("send", *server.options("--ca-file", authority.ca_file))
    assert ran.code == 4
    assert "was not trusted: not yet valid" in ran.err
    assert "(valid in 2 days)" in ran.err


@pytest.mark.parametrize(("host", "reason"), [("localhost", "hostname mismatch"), ("127.0.0.1", "IP address mismatch")])
def test_wrong_name(serve, client, authority, host, reason):
    """REQ-INFRA-CLIENT-006: the name asked for beside the names there are."""
    server = serve(issued=authority.issue("mail.example.com", "*.example.net"))
    ran = client("send", "--host", host, "--port", server.port, "--ca-file", authority.ca_file)
    assert ran.code == 4
    assert f"was not trusted: {reason}" in ran.err
    assert f"asked for      {host}" in ran.err
    assert "names          mail.example.com, *.example.net" in ran.err
    assert "--server-name" in ran.err


def test_server_name_is_what_is_verified(serve, client, authority):
    """REQ-INFRA-CLIENT-006: --server-name follows the advice of the mismatch."""
    server = serve(issued=authority.issue("mail.example.com"))
    ran = client("send", *server.options("--ca-file", authority.ca_file, "--server-name", "mail.example.com"))
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_unknown_issuer(serve, client, tls):
    """REQ-INFRA-CLIENT-006: a private CA that was not named."""
    server = serve(tls)
    ran = client("send", *server.options("--tls", tls))
    assert ran.code == 4
    assert "was not trusted: unknown issuer" in ran.err
    assert "issuer         CN=Test Root" in ran.err
    assert "next step: --ca-file FILE" in ran.err


def test_self_signed(serve, client, authority):
    """REQ-INFRA-CLIENT-006: a self-signed certificate is called so; named as its own CA it is trusted."""
    issued = authority.issue("127.0.0.1", self_signed=True)
    server = serve(issued=issued)
    ran = client("send", *server.options())
    assert ran.code == 4
    assert "was not trusted: self-signed" in ran.err
    assert client("send", *server.options("--ca-file", issued.path)).code == 0


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_insecure_skips_verification_and_says_so(serve, client, authority, tls):
    """REQ-INFRA-CLIENT-007: even an expired certificate for another name; with a warning on stderr."""
    server = serve(tls, issued=authority.issue("other.example.com", days=(-9, -3), self_signed=True))
    ran = client("send", *server.options("--tls", tls, "--insecure"))
    assert ran.code == 0
    assert ran.err == "warning: --insecure: the server's certificate is not verified\n"
    assert server.mailbox.tls == [True]


def test_implicit_tls_to_a_port_that_speaks_first(serve, client):
    """REQ-INFRA-CLIENT-002: the wrong mode is recognised."""
    server = serve("starttls")
    ran = client("send", *server.options("--tls", "implicit", "--insecure"))
    assert ran.code == 4
    assert "--tls starttls" in ran.err


def test_batch_explains_the_certificate_once(serve, client):
    """REQ-INFRA-CLIENT-006: a batch counts the failures and explains one of them."""
    server = serve()
    ran = client("batch", *server.options("--count", "3"))
    assert ran.code == 1
    assert "failed 3 x tls: unable to get local issuer certificate" in ran.out
    assert ran.err.count("was not trusted: unknown issuer") == 1


def test_details_that_cannot_be_had(client, script):
    """REQ-INFRA-CLIENT-006: a port that is no TLS at all is an error of its own, without a traceback."""
    ran = client("send", "--host", "127.0.0.1", "--port", script(b"x" * 64), "--tls", "implicit")
    assert ran.code == 4
    assert "tls: TLS handshake failed" in ran.err


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_ca_file_that_is_none(client, tmp_path, content):
    """REQ-INFRA-CLIENT-006: the file is named, before anything is connected."""
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    ran = client("send", "--ca-file", file)
    assert ran.code == 2
    assert f"{file}" in ran.err
