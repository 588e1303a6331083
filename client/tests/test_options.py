"""The specification's command lines, as they stand there, and the options' bounds."""

import errno
import os
import shlex
import socket

import pytest

from smtp_proxy_client import dial

SEND = """send --host localhost --port {port} --tls starttls --user tenant1@example.com --password 's3cret-pa$$'
    --from sender@example.com --to recipient@example.com --subject "Test Email" --body "This is a test email" """
BATCH = """batch --host localhost --port {port} --tls starttls --user tenant1@example.com --password 's3cret-pa$$'
    --count 10 --rate 100"""
IMPLICIT = "send --host localhost --port {port} --tls implicit --insecure"
WRONG = "send --host localhost --port {port} --user tenant1@example.com --password wrongpassword"


@pytest.mark.parametrize(
    ("line", "tls", "code", "mails"),
    [(SEND, "starttls", 0, 1), (BATCH, "starttls", 0, 10), (IMPLICIT, "implicit", 0, 1), (WRONG, "starttls", 5, 0)],
)
def test_command_lines_of_the_specification(serve, client, authority, monkeypatch, line, tls, code, mails):
    """REQ-INFRA-CLIENT-003, REQ-INFRA-CLIENT-004, REQ-INFRA-CLIENT-005: its examples, with another port."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    server = serve(tls)
    assert client(*shlex.split(line.format(port=server.port))).code == code
    assert len(server.mailbox.envelopes) == mails
    assert all(server.mailbox.tls)


@pytest.mark.parametrize(
    "options",
    [
        ("--count", "0"),
        ("--rate", "0"),
        ("--rate", "-1"),
        ("--rate", "inf"),
        ("--rate", "nan"),
        ("--connections", "0"),
        ("--connections", "1001"),
        ("--messages-per-connection", "-1"),
        ("--timeout", "0"),
        ("--timeout", "inf"),
        ("--timeout", "nan"),
        ("--port", "0"),
        ("--port", "65536"),
        ("--tls", "maybe"),
        ("--auth", "cram-md5"),
        ("--host", ""),
        ("--user", "x"),
        ("--insecure", "--ca-file", "ca.pem"),
        ("--template", "a", "--subject", "b"),
        ("--body", "a", "--body-file", "b"),
        ("--nonsense",),
    ],
)
def test_options_that_cannot_be_meant(client, options):
    """REQ-INFRA-CLIENT-005: exit code 2, and the option is named."""
    ran = client("batch", *options)
    assert (ran.code, ran.out) == (2, "")
    assert options[0] in ran.err


def test_password_without_a_user(client):
    """REQ-INFRA-CLIENT-008: credentials are never dropped in silence."""
    ran = client("send", "--password", "x")
    assert (ran.code, ran.err) == (2, "error: a password without --user\nnext step: add --user NAME\n")


def test_host_with_an_address_family_that_is_missing_here(serve, client, authority, monkeypatch):
    """REQ-INFRA-CLIENT-004: without IPv6 on this machine the IPv4 address is tried."""
    server = serve()
    found = [
        (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, server.port))
        for family, host in ((socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1"))
    ]
    monkeypatch.setattr(dial.socket, "getaddrinfo", lambda *_args, **_kwargs: found)
    refuse_sockets(monkeypatch, socket.AF_INET6, errno.EAFNOSUPPORT)
    ran = client("send", *server.options("--ca-file", authority.ca_file))
    assert (ran.code, ran.err) == (0, "")


def test_too_many_open_files(client, monkeypatch):
    """REQ-INFRA-CLIENT-005: more connections than this machine allows is a failure with its reason."""
    refuse_sockets(monkeypatch, socket.AF_INET, errno.EMFILE)
    ran = client("batch", "--host", "127.0.0.1", "--count", "2")
    assert ran.code == 1
    assert "failed 2 x connect: cannot connect to 127.0.0.1:587 (127.0.0.1: Too many open files)" in ran.out


def refuse_sockets(monkeypatch, family, reason):
    class Limited(socket.socket):
        def __init__(self, wanted=-1, *arguments, **options):
            if wanted == family and "fileno" not in options:
                raise OSError(reason, os.strerror(reason))
            super().__init__(wanted, *arguments, **options)

    monkeypatch.setattr(dial.socket, "socket", Limited)
