"""From what was asked for to the settings that all services of this run share. Pure but for looking for free ports.

What was set on purpose (`--set`, environment, TOML) stays; what is only a default gives way to what suits one machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from smtp_proxy.config import Settings
from smtp_proxy.dev import postgres, valkey
from smtp_proxy.dev.home import SECRET_KEY, Secrets
from smtp_proxy.dev.hosts import is_loopback, reachable
from smtp_proxy.dev.options import DevOptions
from smtp_proxy.dev.ports import Ports
from smtp_proxy.errors import ConfigurationError

# In the order in which they are started; they are stopped in the reverse one.
SERVICES: Final[tuple[str, ...]] = ("postgres", "valkey", "sink", "smtp", "worker", "api")
OUR_SERVICES: Final[tuple[str, ...]] = ("sink", "smtp", "worker", "api")
USERNAME: Final = "dev"
TENANT: Final = "dev"
# Lively: on one's own machine nobody wants to wait a minute for a second attempt, nor two for the stop.
_DEFAULTS: Final[dict[str, Any]] = {
    "log_format": "console",
    "shutdown_timeout_seconds": 10.0,
    "retry_initial_seconds": 2.0,
    "retry_max_seconds": 60.0,
    "worker_lease_seconds": 15.0,
    "sweep_after_seconds": 5.0,
    # All clients come from one address here, thousands of them in a load test; and who tries things by hand is slow.
    "smtp_max_connections_per_address": 0,
    "smtp_max_new_connections_per_address_per_minute": 0,
    "smtp_login_timeout_seconds": 0.0,
    "smtp_login_failures_before_ban": 0,
    "smtp_max_idle_commands_per_session": 0,
    "smtp_min_data_bytes_per_second": 0,
    "login_queue_max_per_address": 0,
    "smtp_max_sessions_per_credential": 0,
    # Who tries webhooks on a laptop listens on it.
    "webhook_https_only": False,
    "webhook_allowed_networks": "127.0.0.0/8,::1/128",
}
_SMARTHOST: Final = frozenset({"smarthost_host", "smarthost_port"})
_OWN_POSTGRES: Final = ("db_host", "db_port", "db_name", "db_user", "db_password", "db_sslmode")


@dataclass(frozen=True, slots=True)
class Plan:
    """What this run is."""

    settings: Settings
    services: tuple[str, ...]
    health_ports: dict[str, int]

    def has(self, service: str) -> bool:
        return service in self.services


def load(options: DevOptions) -> Settings:
    """Read the settings as given, before anything is chosen. Raises ConfigurationError."""
    unknown = sorted(options.without - set(SERVICES))
    if unknown:
        raise ConfigurationError(f"--without {','.join(unknown)}: there are {', '.join(SERVICES)}")
    overrides = dict(options.overrides)
    if options.data_dir is not None:
        overrides["data_dir"] = str(options.data_dir)
    given = Settings.load(overrides)
    _refuse_senseless(options, given)
    return given


def ignored(options: DevOptions, given: Settings) -> list[str]:
    """Settings that were given and have no say here, because the embedded servers bring their own."""
    own: tuple[str, ...] = () if "postgres" in options.without else _OWN_POSTGRES
    own += () if "valkey" in options.without else ("redis_url",)
    return [name for name in own if name in given.model_fields_set]


def make(options: DevOptions, given: Settings, home: Path, secrets: Secrets, ports: Ports) -> Plan:
    """Choose all that is left to choose.

    Raises:
        ConfigurationError: a port is in use; a setting is wrong.
    """
    services = tuple(name for name in SERVICES if name not in options.without)
    values: dict[str, Any] = {name: getattr(given, name) for name in given.model_fields_set}
    for name, value in {**_DEFAULTS, "smtp_plaintext_username": USERNAME}.items():
        values.setdefault(name, value)
    values["data_dir"] = home
    values.setdefault("secret_key_file", home / SECRET_KEY)
    values.update(_listeners(options, given, ports))
    if "postgres" in services:
        values.update(_database(secrets, ports))
    if "valkey" in services:
        values["redis_url"] = valkey.url(ports.choose("valkey"), secrets.redis_password)
    values.update(_next_hop(options, given, reachable(given.sink_host), values["sink_port"]))
    health_ports = {name: ports.choose(f"health_{name}") for name in OUR_SERVICES if name in services}
    return Plan(Settings.load(values, {}), services, health_ports)


def _listeners(options: DevOptions, given: Settings, ports: Ports) -> dict[str, Any]:
    asked = {
        "smtp_starttls_port": options.starttls_port,
        "smtp_tls_port": options.tls_port,
        "sink_port": options.sink_port,
        "sink_http_port": None,
        "api_port": None,
    }
    chosen: dict[str, Any] = {}
    for name, port in asked.items():
        explicit = getattr(given, name) if name in given.model_fields_set else None
        chosen[name] = ports.choose(name, port if port is not None else explicit)
    plaintext = options.plaintext_port if options.plaintext_port is not None else given.smtp_plaintext_port
    if plaintext is not None:
        chosen["smtp_plaintext_port"] = ports.choose("smtp_plaintext_port", plaintext)
    chosen["smtp_accept_only"] = options.accept_only or given.smtp_accept_only
    return chosen


def _database(secrets: Secrets, ports: Ports) -> dict[str, Any]:
    own = ("127.0.0.1", ports.choose("postgres"), postgres.DATABASE, postgres.USER, secrets.db_password, "disable")
    return dict(zip(_OWN_POSTGRES, own, strict=True))


def _next_hop(options: DevOptions, given: Settings, sink_host: str, sink_port: int) -> dict[str, Any]:
    """Say where mail goes: `--smarthost`, else what is set, else the sink."""
    if options.smarthost is not None:
        host, port = options.smarthost
    elif _SMARTHOST & given.model_fields_set:
        host, port = given.smarthost_host, given.smarthost_port
    else:
        host, port = sink_host, sink_port
    hop: dict[str, Any] = {"smarthost_host": host, "smarthost_port": port}
    if "smarthost_tls" not in given.model_fields_set and is_loopback(host):
        # On the way to this very machine nobody listens in, and its certificate would be nobody's.
        hop["smarthost_tls"] = "none"
    return hop


def _refuse_senseless(options: DevOptions, given: Settings) -> None:
    """Raise for what could only fail later, or in a surprising way."""
    if given.mode == "production":
        raise ConfigurationError("SMTP_PROXY_MODE: `smtp-proxy dev` is for development; in production use `serve`")
    if options.smarthost is None and "sink" in options.without and "worker" not in options.without:
        named = _SMARTHOST & given.model_fields_set
        if not named:
            raise ConfigurationError(
                "--without sink: say where mail goes, with --smarthost HOST:PORT, or leave out worker too"
            )
