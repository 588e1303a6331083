"""Certificates that operators bring and take along, and the CA of `smtp-proxy dev`."""

from __future__ import annotations

import asyncio
import stat
import subprocess
from pathlib import Path

import pytest
from certificates import Authority
from fix_shell import Shell

from smtp_proxy.certfiles.canary import try_out
from smtp_proxy.certs.selfsigned import ensure_server_certificate
from smtp_proxy.sealing import new_key_line


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """Chain and key."""
    Authority(tmp_path).pair(tmp_path / "given", "mx.example.com", "mail.example.com")
    return str(tmp_path / "given" / "fullchain.pem"), str(tmp_path / "given" / "privkey.pem")


def test_into_the_store_and_out_again(
    shell: Shell, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REQ-INFRA-TLS-012: its key is sealed, and comes out only when that is asked for."""
    key_file, out = tmp_path / "secret.key", tmp_path / "out"
    key_file.write_text(new_key_line(), encoding="ascii")
    key_file.chmod(0o600)
    monkeypatch.setenv("SECRET_KEY_FILE", str(key_file))
    monkeypatch.setenv("TLS_CERT_SOURCE", "store")
    monkeypatch.setenv("TLS_CERT_DIR", str(tmp_path / "certs"))
    chain, key = pair
    plain = Path(chain).read_bytes()
    Path(chain).write_bytes("Café\n".encode("latin-1") + plain)
    told = shell.json("certs", "import", "mx", "--chain", chain, "--key", key)
    assert (told["where"], told["names"]) == ("store", ["mx.example.com", "mail.example.com"])
    (stored,) = asyncio.run(shell.store.list_fleet_certificates("mx"))
    assert b"PRIVATE KEY" not in stored.sealed.data
    assert shell.json("certs", "export", "mx", "--out", str(out))["files"] == [str(out / "fullchain.pem")]
    assert (out / "fullchain.pem").read_bytes() == plain
    assert not (out / "privkey.pem").exists()
    assert shell("certs", "export", "mx", "--out", str(out), "--with-key") == 0
    assert stat.S_IMODE((out / "privkey.pem").stat().st_mode) == 0o600
    assert (out / "privkey.pem").read_bytes() == Path(key).read_bytes()
    assert "PRIVATE KEY" not in shell.out
    assert shell("certs", "export", "other", "--out", str(out)) != 0
    shell("certs", "declare", "mx.example.com", "--name", "mx")
    assert shell("certs", "import", "mx", "--chain", chain, "--key", key) != 0
    assert "`certs undeclare mx` first" in shell.err, "the issuer would replace it"
    shell("certs", "declare", "mx.example.com", "mail.example.com", "--name", "mx")
    assert shell("certs", "import", "mx", "--chain", chain, "--key", key) == 0


def test_into_the_directory(
    shell: Shell, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REQ-INFRA-TLS-005: where the running service sees it."""
    chain, key = pair
    assert shell("certs", "import", "mx", "--chain", chain, "--key", key) != 0
    assert "TLS_CERT_DIR is not set" in shell.err
    monkeypatch.setenv("TLS_CERT_DIR", str(tmp_path / "certs"))
    assert shell("certs", "import", "mx", "--chain", chain, "--key", key) == 0
    placed = tmp_path / "certs" / "mx" / "privkey.pem"
    assert placed.read_bytes() == Path(key).read_bytes()
    assert stat.S_IMODE(placed.stat().st_mode) == 0o600


def test_what_is_not_good_goes_nowhere(
    shell: Shell, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLS_CERT_DIR", str(tmp_path / "certs"))
    files = ensure_server_certificate(tmp_path / "tls", ["localhost"])
    own, own_key = str(files.certificate_file), str(files.key_file)
    assert shell("certs", "import", "mx", "--chain", pair[0], "--key", own_key) != 0
    assert "the key is not that of the certificate" in shell.err
    assert shell("certs", "import", "mx", "--chain", str(tmp_path / "none.pem"), "--key", own_key) != 0
    assert "--chain: can not read" in shell.err
    assert shell("--set", "mode=production", "certs", "import", "mx", "--chain", own, "--key", own_key) != 0
    assert "SMTP_PROXY_MODE is production" in shell.err
    assert not (tmp_path / "certs").exists()


def test_trust(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-INFRA-TLS-009: of the CA that is there."""
    monkeypatch.setenv("SMTP_PROXY_DATA_DIR", str(tmp_path / "my data"))
    assert shell("certs", "trust") != 0
    assert "`smtp-proxy dev` makes it" in shell.err
    files = ensure_server_certificate(tmp_path / "my data" / "tls", ["localhost"])
    told = shell.json("certs", "trust")
    assert told["ca_file"] == str(files.ca_file)
    commands = {way["program"]: way["command"] for way in told["ways"]}
    assert commands["Python"] == f"SSL_CERT_FILE='{files.ca_file}'"
    assert {"Debian, Ubuntu", "macOS", "Node", "curl", "swaks"} < set(commands)


def test_selfsigned(shell: Shell, tmp_path: Path) -> None:
    """REQ-INFRA-TLS-007, REQ-INFRA-TLS-009: made once, also for the names in Compose; kept while it is good."""
    folder = tmp_path / "certs"
    made = shell.json("certs", "selfsigned", str(folder))
    assert (made["kept"], made["names"][:2]) == (False, ["localhost", "127.0.0.1"])
    assert "smtp-server" in made["names"]
    assert stat.S_IMODE(Path(made["key"]).stat().st_mode) == 0o600
    before = Path(made["certificate"]).read_bytes()
    assert shell("certs", "selfsigned", str(folder)) == 0
    assert "kept" in shell.out
    assert Path(made["certificate"]).read_bytes() == before
    others = shell.json("certs", "selfsigned", str(folder), "--name", "mail.test", "--name", "10.0.0.1")
    assert (others["kept"], others["names"]) == (False, ["mail.test", "10.0.0.1"])
    try_out(Path(others["certificate"]).read_bytes(), Path(others["key"]).read_bytes(), "selfsigned")


def test_selfsigned_is_not_for_production(shell: Shell, tmp_path: Path) -> None:
    """REQ-INFRA-TLS-008."""
    assert shell("--set", "mode=production", "certs", "selfsigned", str(tmp_path / "certs")) != 0
    assert "SMTP_PROXY_MODE is production" in shell.err
    assert not (tmp_path / "certs").exists()


def test_the_script_of_the_checkout(tmp_path: Path) -> None:
    script = Path(__file__).parents[3] / "devstack/generate-dev-certs.sh"
    for said in ("made for localhost", "kept"):
        done = subprocess.run([script, tmp_path / "certs"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
    assert sorted(each.name for each in (tmp_path / "certs").iterdir()) == [
        "ca-key.pem",
        "ca.pem",
        "server-key.pem",
        "server.pem",
    ]
