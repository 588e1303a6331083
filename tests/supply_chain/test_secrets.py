"""No secret is in version control: REQ-INFRA-TLS-012."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A key that begins, and goes on with more than a test writes by hand to be refused.
PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----[\s\\nr\"']*[A-Za-z0-9+/=\s\\nr\"']{100,}")
ACCESS_KEY = re.compile(rb"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b")


def tracked() -> list[Path]:
    done = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this is no clone, so nothing is under version control")
    return [ROOT / name for name in done.stdout.decode().split("\0") if name]


def test_no_key_is_in_version_control() -> None:
    files = [file for file in tracked() if file.is_file()]
    assert len(files) > 500
    for file in files:
        content = file.read_bytes()
        assert not PRIVATE_KEY.search(content), file
        assert not ACCESS_KEY.search(content), file


def test_what_would_be_found() -> None:
    body = b"\n".join([b"MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgq0Yy8qzqwQ0eXNPF"] * 3)
    for kind in (b"", b"EC ", b"RSA ", b"ENCRYPTED "):
        assert PRIVATE_KEY.search(b"-----BEGIN " + kind + b"PRIVATE KEY-----\n" + body)
    assert ACCESS_KEY.search(b"key = AKIA" + b"ABCDEFGH234567AB")


def test_what_is_ignored() -> None:
    """Where keys are made in a checkout: the data of `smtp-proxy dev`, and of devstack/generate-dev-certs.sh."""
    for name in (".data/tls/server-key.pem", ".data/certs/ca-key.pem", "terraform/terraform.tfstate"):
        done = subprocess.run(["git", "-C", ROOT, "check-ignore", "-q", name], check=False)
        assert done.returncode == 0, name
