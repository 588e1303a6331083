"""The ready file: the contract with anyone's test harness (docs/DEV.md). Keys may be added; none may change."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smtp_proxy.config import Settings, environment_name
from smtp_proxy.dev.account import API_KEY_FILE
from smtp_proxy.dev.home import write_private
from smtp_proxy.dev.hosts import bracketed, reachable
from smtp_proxy.dev.plan import USERNAME, Plan
from smtp_proxy.errors import ConfigurationError

_DATABASE = ("db_host", "db_port", "db_name", "db_user", "db_password", "db_sslmode")


def describe(plan: Plan, password: str, ca_file: Path | None, pids: Mapping[str, int]) -> dict[str, Any]:
    """Build the object. `pids` is of those that run now; `ca_file` None: not ours to know."""
    settings = plan.settings
    return {
        "smtp": _smtp(settings) if plan.has("smtp") else None,
        "ca_file": None if ca_file is None else str(ca_file),
        "user": USERNAME,
        "password": password,
        "sink": {"smtp_port": settings.sink_port, "http_url": sink_url(settings)} if plan.has("sink") else None,
        "api": _api(settings) if plan.has("api") else None,
        "database": _database(settings),
        "redis_url": settings.redis_url.get_secret_value(),
        "data_dir": str(settings.data_dir),
        "settings_file": str(settings.data_dir / "settings.toml"),
        "health": {
            name: f"http://{bracketed(reachable(settings.health_host))}:{port}"
            for name, port in plan.health_ports.items()
        },
        "pids": {**pids, "supervisor": os.getpid()},
    }


class ReadyFile:
    """Written whole beside its place and renamed; nothing is written before the first `write` or after `remove`."""

    def __init__(self, path: Path | None) -> None:
        """Raises ConfigurationError: there is no folder for it, or it is one."""
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigurationError(f"--ready-file {path}: there is no folder {path.absolute().parent}; make it first")
        if path is not None and path.is_dir():
            raise ConfigurationError(f"--ready-file {path}: that is a folder; name a file in it")
        self._path = path.absolute() if path is not None else None

    def write(self, ready: Mapping[str, Any]) -> None:
        """Raises ConfigurationError, naming the file."""
        if self._path is not None:
            write_private(self._path, json.dumps(ready, indent=2) + "\n")

    def remove(self) -> None:
        """What a run that was killed left behind would be believed."""
        if self._path is not None:
            with contextlib.suppress(OSError):  # then it can not be written either, and that is told
                self._path.unlink(missing_ok=True)


def sink_url(settings: Settings) -> str:
    """Where the sink's HTTP side is."""
    return f"http://{bracketed(reachable(settings.sink_host))}:{settings.sink_http_port}"


def api_url(settings: Settings) -> str:
    """Where the HTTP API is."""
    return f"http://{bracketed(reachable(settings.api_host))}:{settings.api_port}"


def _api(settings: Settings) -> dict[str, str]:
    return {"url": api_url(settings), "key_file": str(settings.data_dir / API_KEY_FILE)}


def _smtp(settings: Settings) -> dict[str, Any]:
    return {
        "host": reachable(settings.smtp_host),
        "starttls_port": settings.smtp_starttls_port,
        "tls_port": settings.smtp_tls_port,
        "plaintext_port": settings.smtp_plaintext_port,
    }


def _database(settings: Settings) -> dict[str, str]:
    values = {name: getattr(settings, name) for name in _DATABASE}
    values["db_password"] = settings.db_password.get_secret_value()
    return {environment_name(name): str(value) for name, value in values.items()}
