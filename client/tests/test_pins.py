"""--pin: the server's public key must be a known one, beside or instead of its CA. REQ-INFRA-TLS-015."""

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from smtp_proxy_client.pins import pin_of

OTHER = "sha256/" + "A" * 43 + "="


def pin_of_issued(issued) -> str:
    return pin_of(issued.certificate.public_bytes(Encoding.DER))


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize("trust", ["ca", "insecure"])
def test_the_pinned_key_will_do(serve, client, authority, tls, trust):
    issued = authority.issue("localhost", "127.0.0.1")
    server = serve(tls, issued=issued)
    rest = ("--ca-file", authority.ca_file) if trust == "ca" else ("--insecure",)
    ran = client("send", *server.options("--tls", tls, *rest, "--pin", OTHER, "--pin", pin_of_issued(issued)))
    assert ran.code == 0, ran.err
    assert len(server.mailbox.envelopes) == 1


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_another_key_is_shown_and_nothing_is_sent(serve, client, authority, tls):
    issued = authority.issue("localhost", "127.0.0.1")
    server = serve(tls, issued=issued)
    ran = client("send", *server.options("--tls", tls, "--ca-file", authority.ca_file, "--pin", OTHER))
    assert ran.code == 4
    assert f"the server's public key is not pinned: it shows {pin_of_issued(issued)}" in ran.err
    assert f"--pin {pin_of_issued(issued)}" in ran.err
    assert server.mailbox.envelopes == []


def test_an_untrusted_certificate_shows_its_pin(serve, client, authority):
    issued = authority.issue("localhost", "127.0.0.1", days=(-9, -1))
    server = serve(issued=issued)
    ran = client("send", *server.options("--ca-file", authority.ca_file))
    assert f"pin            {pin_of_issued(issued)}" in ran.err


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--pin", "sha1/x"), "write sha256/"), (("--pin", OTHER, "--tls", "none"), "--pin without TLS")],
)
def test_what_cannot_be_meant(client, options, said):
    ran = client("send", *options)
    assert ran.code == 2
    assert said in ran.err
