"""The process: usage, settings, services, and the exit codes it leaves with."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from fix_shell import Shell, module

from smtp_proxy import __version__, cli
from smtp_proxy.config import Settings
from smtp_proxy.dev.options import DevOptions
from smtp_proxy.errors import ConfigurationError, ServiceFailed, StoreUnavailable
from smtp_proxy.telemetry import logs


def test_version(shell: Shell) -> None:
    assert shell("--version") == 0
    assert shell.out == f"smtp-proxy {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["serve", "coffee"], ["messages", "list", "--limit", "0"], ["show"]]
)
def test_wrong_usage_is_2(shell: Shell, arguments: list[str]) -> None:
    assert shell(*arguments) == 2
    assert "Traceback" not in shell.err


def test_settings_are_listed_and_secrets_are_not_shown(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    rows = {row["setting"]: row for row in shell.json("--set", "SMTP_TLS_PORT=465", "settings")}
    assert set(rows) == set(Settings.model_fields)
    assert (rows["smtp_tls_port"]["value"], rows["smtp_tls_port"]["default"]) == (465, 2465)
    assert rows["hostname"]["environment"] == "SMTP_PROXY_HOSTNAME"
    assert rows["db_password"]["value"] == "***"
    assert shell("settings") == 0
    assert "hunter2" not in shell.out
    assert any(line.split()[:3] == ["db_port", "DB_PORT", "5432"] for line in shell.out.splitlines())


@pytest.mark.parametrize(
    ("pairs", "said"),
    [(["no_such=1"], "no such setting"), (["db_port"], "write KEY=VALUE"), (["db_port=x"], "--set db_port: ")],
)
def test_a_wrong_set_is_2_and_one_line(shell: Shell, pairs: list[str], said: str) -> None:
    assert shell(*(word for pair in pairs for word in ("--set", pair)), "tenant", "list") == 2
    assert said in shell.err
    assert shell.err.startswith("smtp-proxy: ")
    assert len(shell.err.splitlines()) == 1


def test_a_store_that_is_away_is_1_and_one_line(shell: Shell) -> None:
    shell.store.down = True
    assert shell("tenant", "list") == 1
    assert shell.err == "smtp-proxy: The database can not be reached, or can not commit at present.\n"


def test_the_traceback_is_there_for_who_asks(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1")
    shell.store.down = True
    assert shell("tenant", "list") == 1
    assert "Traceback" in shell.err


# -- services


def test_serve_runs_the_service_with_its_settings(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    async def service(settings: Settings) -> None:
        seen.append(settings)

    monkeypatch.setattr(logs, "configure", lambda settings, name: seen.append(name))
    module("smtp_proxy.worker.worker", monkeypatch, run=service)
    assert shell("--set", "db_port=1", "serve", "worker", "--set", "worker_concurrency=3") == 0
    assert seen[0] == "worker"
    assert (seen[1].db_port, seen[1].worker_concurrency) == (1, 3)


@pytest.mark.parametrize(
    ("errors", "code", "said"),
    [
        ([ServiceFailed("the core ended")], 1, "the core ended"),
        ([ServiceFailed("it ended"), ConfigurationError("tls_key_file: no such file")], 2, "tls_key_file"),
        ([ValueError("x"), StoreUnavailable("Postgres is away")], 1, "Postgres is away"),
    ],
)
def test_what_a_service_raises_in_a_group_is_said_in_one_line(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, errors: list[Exception], code: int, said: str
) -> None:
    async def service(settings: Settings) -> None:
        raise ExceptionGroup("services", errors)

    monkeypatch.setattr(logs, "configure", lambda settings, name: None)
    module("smtp_proxy.ingress.serve", monkeypatch, run=service)
    assert shell("serve", "smtp") == code
    assert shell.err.startswith("smtp-proxy: ")
    assert said in shell.err


def test_an_error_that_is_not_ours_shows_where(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def service(settings: Settings) -> None:
        raise KeyError("x")

    monkeypatch.setattr(logs, "configure", lambda settings, name: None)
    module("smtp_proxy.ingress.serve", monkeypatch, run=service)
    assert shell("serve", "smtp") == 1
    assert "Traceback" in shell.err


def test_what_is_not_installed_is_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> None:
        raise ModuleNotFoundError("No module named 'aiosmtpd'", name="aiosmtpd")

    monkeypatch.setattr(logs, "configure", lambda settings, name: None)
    monkeypatch.setattr(importlib, "import_module", import_module)
    assert shell("serve", "sink") == 2
    assert "aiosmtpd is not installed" in shell.err
    assert "smtp-proxy[dev]" in shell.err


def test_dev_hands_over_what_was_asked(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    seen: list[DevOptions] = []

    async def supervise(options: DevOptions) -> int:
        seen.append(options)
        return 3

    module("smtp_proxy.dev.supervisor", monkeypatch, run=supervise)
    code = shell(
        "--set", "log_level=debug", "dev", "--ready-file", str(tmp_path / "ready"), "--data", str(tmp_path),
        "--smarthost", "[::1]:2525", "--without", "worker, sink", "--without", "api", "--set", "DB_POOL_SIZE=4",
        "--plaintext-port", "0", "--accept-only", "--starttls-port", "1587", "--tls-port", "1465",
        "--sink-port", "1525",
    )  # fmt: skip
    assert code == 3
    assert seen == [
        DevOptions(
            ready_file=tmp_path / "ready",
            data_dir=tmp_path,
            smarthost=("::1", 2525),
            without=frozenset({"worker", "sink", "api"}),
            overrides={"log_level": "debug", "db_pool_size": "4"},
            plaintext_port=0,
            accept_only=True,
            starttls_port=1587,
            tls_port=1465,
            sink_port=1525,
        )
    ]
    shell("dev")
    assert seen[1] == DevOptions()


def test_healthcheck_needs_a_port(shell: Shell) -> None:
    assert shell("healthcheck", "smtp") == 2
    assert "HEALTH_PORT" in shell.err


def test_healthcheck_knows_the_services(shell: Shell) -> None:
    assert shell("--set", "health_port=1", "healthcheck", "smpt") == 2
    assert "smtp" in shell.err
    assert "does not answer" not in shell.err


@pytest.mark.parametrize("url", ["nonsense", "redis://127.0.0.1:99999", "redis://:sekret/word@h:6379"])
def test_a_wrong_redis_url_is_one_line_without_its_password(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    assert shell("serve", "worker") == 2
    assert shell.err.startswith("smtp-proxy: environment variable REDIS_URL: ")
    assert len(shell.err.splitlines()) == 1
    assert "sekret" not in shell.err


@pytest.mark.parametrize("name", ["gone.pem", "."])
def test_a_certificate_that_can_not_be_read_is_2(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(logs, "configure", lambda settings, name: None)
    monkeypatch.setenv("TLS_CERT_FILE", str(tmp_path / name))
    monkeypatch.setenv("TLS_KEY_FILE", str(tmp_path / name))
    assert shell("serve", "smtp") == 2
    assert shell.err.startswith(f"smtp-proxy: TLS_CERT_FILE: can not read {tmp_path / name}: ")
    assert len(shell.err.splitlines()) == 1
