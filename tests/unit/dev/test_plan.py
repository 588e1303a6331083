"""From options to settings: what was set on purpose stays, what is only a default suits one machine."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

from smtp_proxy.config import Settings
from smtp_proxy.dev import plan
from smtp_proxy.dev.home import Secrets
from smtp_proxy.dev.options import DevOptions
from smtp_proxy.dev.plan import Plan
from smtp_proxy.dev.ports import Ports
from smtp_proxy.errors import ConfigurationError

SECRETS = Secrets("db secret", "redis-secret")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DB_HOST", "SMTP_TLS_PORT", "SMTP_PROXY_CONFIG", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


def made(options: DevOptions, remembered: dict[str, object] | None = None) -> Plan:
    with closing(Ports(remembered or {})) as ports:
        return plan.make(options, plan.load(options), Path("/data"), SECRETS, ports)


def test_by_default_all_runs_here_on_ports_of_its_own() -> None:
    result = made(DevOptions())
    settings = result.settings
    assert result.services == ("postgres", "valkey", "sink", "smtp", "worker", "api")
    assert (settings.smarthost_host, settings.smarthost_port) == ("127.0.0.1", settings.sink_port)
    assert settings.smarthost_tls == "none"
    assert (settings.db_host, settings.db_password) == ("127.0.0.1", SecretStr("db secret"))
    assert settings.redis_url.get_secret_value().startswith("redis://:redis-secret@127.0.0.1:")
    assert settings.smtp_plaintext_port is None
    assert settings.data_dir == Path("/data")
    assert settings.log_format == "console"
    ports = [
        settings.smtp_starttls_port, settings.smtp_tls_port, settings.sink_port, settings.sink_http_port,
        settings.db_port, *result.health_ports.values(),
    ]  # fmt: skip
    assert len(set(ports)) == len(ports)


def test_ten_thousand_clients_of_one_address_are_not_hindered_unless_asked_for() -> None:
    off = (
        "smtp_max_connections_per_address",
        "smtp_max_new_connections_per_address_per_minute",
        "smtp_login_timeout_seconds",
        "smtp_login_failures_before_ban",
        "smtp_max_idle_commands_per_session",
        "smtp_min_data_bytes_per_second",
        "login_queue_max_per_address",
        "smtp_max_sessions_per_credential",
    )
    settings = made(DevOptions()).settings
    assert [getattr(settings, name) for name in off] == [0] * len(off)
    assert settings.smtp_max_connections >= 10_000
    asked = made(DevOptions(overrides={"smtp_max_connections_per_address": "7"})).settings
    assert asked.smtp_max_connections_per_address == 7


def test_what_was_set_on_purpose_stays() -> None:
    overrides = {"log_format": "json", "retry_initial_seconds": "60", "smtp_tls_port": "0", "smarthost_tls": "starttls"}
    settings = made(DevOptions(overrides=overrides)).settings
    assert (settings.log_format, settings.retry_initial_seconds) == ("json", 60.0)
    assert settings.smarthost_tls == "starttls"
    assert settings.smtp_tls_port != 0


def test_ports_are_those_of_the_last_time_unless_taken() -> None:
    first = made(DevOptions())
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        remembered: dict[str, object] = {"smtp_tls_port": first.settings.smtp_tls_port, "sink_port": taken}
        again = made(DevOptions(), remembered)
    assert again.settings.smtp_tls_port == first.settings.smtp_tls_port
    assert again.settings.sink_port != taken


def test_a_port_that_is_in_use_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"smtp_starttls_port: port {port} is in use"):
            made(DevOptions(starttls_port=port))
        with pytest.raises(ConfigurationError, match=f"smtp_tls_port: port {port} is in use"):
            made(DevOptions(overrides={"smtp_tls_port": str(port)}))


@pytest.mark.parametrize(
    ("smarthost", "tls"), [(("127.0.0.1", 25), "none"), (("::1", 25), "none"), (("mail.example.com", 587), "starttls")]
)
def test_mail_leaves_this_machine_encrypted(smarthost: tuple[str, int], tls: str) -> None:
    settings = made(DevOptions(smarthost=smarthost)).settings
    assert (settings.smarthost_host, settings.smarthost_port, settings.smarthost_tls) == (*smarthost, tls)


def test_a_smarthost_among_the_settings_counts() -> None:
    settings = made(DevOptions(overrides={"smarthost_host": "mail.example.com", "smarthost_port": "25"})).settings
    assert (settings.smarthost_host, settings.smarthost_port) == ("mail.example.com", 25)


def test_ones_own_servers_are_used_when_asked() -> None:
    options = DevOptions(
        without=frozenset({"postgres", "valkey"}),
        overrides={"db_host": "db.example", "redis_url": "redis://redis.example:1"},
    )
    result = made(options)
    assert result.services == ("sink", "smtp", "worker", "api")
    assert result.settings.db_host == "db.example"
    assert result.settings.redis_url.get_secret_value() == "redis://redis.example:1"
    assert plan.ignored(options, plan.load(options)) == []


def test_settings_without_a_say_are_named() -> None:
    options = DevOptions(overrides={"db_host": "db.example", "redis_url": "redis://x"})
    assert plan.ignored(options, plan.load(options)) == ["db_host", "redis_url"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (DevOptions(without=frozenset({"sinc"})), r"--without sinc: there are postgres, valkey, sink, smtp, worker"),
        (DevOptions(without=frozenset({"sink"})), r"--without sink: say where mail goes, with --smarthost"),
        (DevOptions(overrides={"mode": "production"}), r"SMTP_PROXY_MODE: .*in production use `serve`"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(options: DevOptions, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        plan.load(options)


def test_a_settings_file_of_these_is_read_back_the_same(tmp_path: Path) -> None:
    settings = made(DevOptions(plaintext_port=0, accept_only=True)).settings
    file = tmp_path / "settings.toml"
    file.write_text(settings.toml())
    assert Settings.load({}, {"SMTP_PROXY_CONFIG": str(file)}) == settings


def test_two_that_start_at_the_same_moment_choose_different_ports() -> None:
    """Both find a port free that neither has bound yet."""
    first, second = Ports({}), Ports({})
    mine = [first.choose(str(n)) for n in range(5)]
    remembered: dict[str, object] = {str(n): port for n, port in enumerate(mine)}
    again = Ports(remembered)
    theirs = [again.choose(str(n)) for n in range(5)] + [second.choose("x")]
    assert not set(mine) & set(theirs)
    with pytest.raises(ConfigurationError, match=f"port {mine[0]} is in use"):
        second.choose("y", mine[0])
    for ports in (first, second, again):
        ports.close()
    third = Ports(remembered)
    assert [third.choose(str(n)) for n in range(5)] == mine
    third.close()
