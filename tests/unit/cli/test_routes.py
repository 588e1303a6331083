"""`smtp-proxy routes`: what is wrong with the file, and which way a recipient's mail would go."""

from __future__ import annotations

from pathlib import Path

import pytest
from fix_shell import Shell

FILE = """
[routes.relay]
hosts = ["a.relay.example", { host = "b.relay.example", port = 465, priority = 20 }]
username = "acme"
password = { env = "RELAY_PASSWORD" }
[routes.direct]
kind = "mx"
private_addresses = true
[[rules]]
tenant = "acme"
domain = "*.example"
routes = ["relay"]
[[rules]]
domain = "[192.0.2.1]"
routes = ["direct"]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "routes.toml"
    path.write_text(FILE)
    monkeypatch.setenv("ROUTES_FILE", str(path))
    monkeypatch.setenv("RELAY_PASSWORD", "hunter2")
    return path


def test_check(shell: Shell, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shell("routes", "check") == 0
    assert shell.out == "the routes are good\n"
    monkeypatch.delenv("RELAY_PASSWORD")
    assert shell("routes", "check") == 2
    assert "routes.relay.password: the environment variable RELAY_PASSWORD is not set" in shell.err
    file.write_text("default = 'nowhere'")
    assert shell("routes", "check") == 2
    assert f"ROUTES_FILE={file}" in shell.err
    monkeypatch.delenv("ROUTES_FILE")
    assert shell("routes", "check") == 0
    assert "smarthost" in shell.out


@pytest.mark.usefixtures("file")
def test_show_by_tenant_and_domain(shell: Shell) -> None:
    found = shell.json("routes", "show", "x@sub.example", "--tenant", "acme", "--json")
    assert found["because"] == "rule for *.example of tenant acme"
    assert [(row["next_hop"], row["login"]) for row in found["candidates"]] == [
        ("a.relay.example:587", "password"),
        ("b.relay.example:465", "password"),
    ]
    assert {row["dkim"] for row in found["candidates"]} == {"all"}
    assert found["candidates"][0]["tls"] == "starttls: certificate of its name"
    assert found["trouble"] is None
    assert shell("routes", "show", "x@sub.example") == 0
    assert "sub.example: settings -> smarthost" in shell.out
    assert "hunter2" not in shell.out


@pytest.mark.usefixtures("file")
def test_show_without_a_file(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROUTES_FILE")
    found = shell.json("--set", "SMARTHOST_HOST=out.example", "routes", "show", "x@a.example", "--json")
    assert [row["next_hop"] for row in found["candidates"]] == ["out.example:2525"]


@pytest.mark.parametrize("address", ["", "x@", "."])
def test_show_of_no_address(shell: Shell, address: str) -> None:
    assert shell("routes", "show", address) == 2
