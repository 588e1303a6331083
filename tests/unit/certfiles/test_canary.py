"""A certificate is served to a client of our own first. REQ-INFRA-TLS-005."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from certificates import Authority
from cryptography.x509.oid import ExtendedKeyUsageOID

from smtp_proxy.certfiles.canary import NotTried, try_out
from smtp_proxy.errors import CertificateProblem

Pair = tuple[bytes, bytes]


def pair(folder: Path, *names: str, **how: object) -> Pair:
    folder.mkdir(exist_ok=True)
    Authority(folder).pair(folder / "pair", *names, **how)  # type: ignore[arg-type]
    return (folder / "pair/fullchain.pem").read_bytes(), (folder / "pair/privkey.pem").read_bytes()


@pytest.mark.parametrize("tls13_only", [False, True])
@pytest.mark.parametrize("names", [("a.example",), ("a.example", "*.b.example", "127.0.0.1", "::1"), ("127.0.0.1",)])
def test_a_good_one_sings(tmp_path: Path, names: tuple[str, ...], tls13_only: bool) -> None:
    try_out(*pair(tmp_path, *names), "the new one", tls13_only=tls13_only)


def test_what_the_core_does_not_take_is_refused(tmp_path: Path) -> None:
    chain, key = pair(tmp_path, "a.example", days=-1)
    with pytest.raises(CertificateProblem, match=r"the new one.*expired"):
        try_out(chain, key, "the new one")


@pytest.mark.parametrize("purpose", [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.EMAIL_PROTECTION])
def test_one_that_is_not_for_servers_is_refused(tmp_path: Path, purpose: object) -> None:
    """The core would serve it, and every client that looks would go away."""
    chain, key = pair(tmp_path, "a.example", purpose=purpose)
    said = r"^the new one: a client that asks for a\.example refuses it: .*purpose"
    with pytest.raises(CertificateProblem, match=said):
        try_out(chain, key, "the new one")


def test_a_key_of_another_one_is_refused(tmp_path: Path) -> None:
    chain, _ = pair(tmp_path / "one", "a.example")
    _, key = pair(tmp_path / "two", "a.example")
    with pytest.raises(CertificateProblem, match="the new one"):
        try_out(chain, key, "the new one")


@pytest.mark.parametrize("chain", [b"", b"-----BEGIN CERTIFICATE-----\nMIIB\n", b"\x00" * 100])
def test_what_is_no_certificate_is_refused(chain: bytes, tmp_path: Path) -> None:
    _, key = pair(tmp_path, "a.example")
    with pytest.raises(CertificateProblem, match="the new one: it holds no PEM certificate"):
        try_out(chain, key, "the new one")


def test_no_key_is_shown(tmp_path: Path) -> None:
    chain, _ = pair(tmp_path, "a.example")
    with pytest.raises(CertificateProblem) as raised:
        try_out(chain, b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "the new one")
    assert "c2VjcmV0" not in str(raised.value)


def test_many_names_take_no_longer_than_all_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection had a bound and all together had none: a hundred names on a slow machine, a quarter hour."""
    chain, key = pair(tmp_path, *(f"n{n}.example" for n in range(50)))
    monkeypatch.setattr("smtp_proxy.certfiles.canary._TOTAL_SECONDS", 0.0)
    with pytest.raises(NotTried, match="not all of its names were asked for within 0 s; it is tried again"):
        try_out(chain, key, "the new one")


def test_a_machine_without_descriptors_says_so(tmp_path: Path) -> None:
    """Nothing is known against the certificate, and the service that wanted to reload goes on."""
    chain, key = pair(tmp_path, "a.example")
    child = os.fork()
    if child == 0:
        soft = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        reason = 3
        for more in range(12):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft + more, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            try:
                try_out(chain, key, "the new one")
            except NotTried:
                reason = 0
            except BaseException:
                os._exit(2)
        os._exit(reason)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
