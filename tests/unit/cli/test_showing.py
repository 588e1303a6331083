"""One certificate, shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from certificates import Authority
from cryptography.hazmat.primitives import hashes, serialization
from fix_shell import Shell

from smtp_proxy.delivery.pins import pin_of


def test_what_is_shown(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-INFRA-TLS-014, REQ-INFRA-TLS-015: what is stapled, and what to pin."""
    authority, folder = Authority(tmp_path), tmp_path / "certs" / "mx"
    leaf = authority.pair(folder, "mx.example.com", "mail.example.com")
    monkeypatch.setenv("TLS_CERT_DIR", str(tmp_path / "certs"))
    monkeypatch.setenv("SMTP_PROXY_DATA_DIR", str(tmp_path))
    shown = shell.json("certs", "show", "mx")
    assert shown == shell.json("certs", "show", "MAIL.example.com") | {"days_left": shown["days_left"]}
    assert shown["names"] == ["mx.example.com", "mail.example.com"]
    assert shown["fingerprint"] == leaf.fingerprint(hashes.SHA256()).hex()
    assert shown["spki_pin"] == pin_of(leaf.public_bytes(serialization.Encoding.DER))
    assert (shown["key"], shown["issuer"], shown["ocsp"]) == ("ECDSA secp256r1", "CN=test CA", "none")
    assert 0.9 <= shown["days_left"] <= 1
    assert shown["served"] is None, "no service runs here"
    (folder / "ocsp.der").write_bytes(authority.ocsp(leaf))
    assert shell.json("certs", "show", "mx")["ocsp"].startswith("stapled until ")
    (folder / "ocsp.der").write_bytes(b"nonsense")
    assert shell.json("certs", "show", "mx")["ocsp"].startswith("not stapled: it can not be read")
    assert shell("certs", "show", "mx") == 0
    assert "no service answers" in shell.out
    assert "PRIVATE" not in shell.out
    assert shell("certs", "show", "other") != 0
    assert "other" in shell.err
