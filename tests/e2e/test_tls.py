"""TLS as clients of all ages find it."""

from __future__ import annotations

import smtplib
import ssl
import subprocess
import warnings
from pathlib import Path

import pytest
from fix_dev import Dev

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ssl.TLSVersion


def client(dev: Dev, only: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=dev.ready["ca_file"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that old versions are old is the point
        context.minimum_version = context.maximum_version = only
    # Let our side offer what is old, so that it is the server who refuses.
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def connect(dev: Dev, context: ssl.SSLContext, mode: str) -> smtplib.SMTP:
    if mode == "implicit":
        return smtplib.SMTP_SSL("127.0.0.1", dev.ready["smtp"]["tls_port"], context=context, timeout=10)
    smtp = smtplib.SMTP("127.0.0.1", dev.ready["smtp"]["starttls_port"], timeout=10)
    smtp.starttls(context=context)
    return smtp


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@pytest.mark.parametrize(("version", "name"), [(VERSIONS.TLSv1_2, "TLSv1.2"), (VERSIONS.TLSv1_3, "TLSv1.3")])
def test_today_s_versions_serve_in_both_modes(dev: Dev, mode: str, version: ssl.TLSVersion, name: str) -> None:
    """REQ-INFRA-TLS-001, REQ-INFRA-TLS-002; by the certificate of development, REQ-INFRA-TLS-009."""
    with connect(dev, client(dev, version), mode) as smtp:
        assert isinstance(smtp.sock, ssl.SSLSocket)
        assert smtp.sock.version() == name
        smtp.login(dev.ready["user"], dev.ready["password"])
        assert smtp.sendmail("a@example.com", ["b@example.org"], f"Subject: {mode} {name}\r\n\r\n") == {}


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@pytest.mark.parametrize("version", [VERSIONS.TLSv1, VERSIONS.TLSv1_1])
def test_older_versions_are_refused_by_the_server(dev: Dev, mode: str, version: ssl.TLSVersion) -> None:
    """REQ-INFRA-TLS-011."""
    with pytest.raises(ssl.SSLError, match=r"ALERT_(PROTOCOL_VERSION|HANDSHAKE_FAILURE)"):
        connect(dev, client(dev, version), mode)


def test_no_private_key_is_in_the_repository() -> None:
    """REQ-INFRA-TLS-012."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    files = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    marks = (b"PRIVATE KEY-----\n", b"PRIVATE KEY-----\r\n")
    assert [file for file in files if file.is_file() and any(mark in file.read_bytes() for mark in marks)] == []
