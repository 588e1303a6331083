"""The data directory of `smtp-proxy dev`: what is kept between runs, and that only one run uses it.

.data/
  lock               held while running
  secrets.json       0600: what was generated at the first run
  secret.key         0600: seals secrets in the database (SECRET_KEY_FILE)
  password           0600: the first tenant's password alone, for --password-file
  ports.json         the ports of the last run, used again where they are free
  processes.json     what runs now, so that a run after a crash of the supervisor can end what that left behind
  settings.toml      0600: the settings of this run; SMTP_PROXY_CONFIG=… lets other commands use them
  tls/ postgres/ valkey/ sink/
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smtp_proxy.errors import ConfigurationError
from smtp_proxy.sealing import new_key_line

SECRET_KEY = "secret.key"  # noqa: S105 - the name of a file
_SECRETS = "secrets.json"
_SECRET_BYTES = 24


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """Generated at the first run."""

    db_password: str
    redis_password: str


class Home:
    """One data directory, held by this process from `open` to `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    def open(self) -> None:
        """Make the directory and hold it.

        Raises:
            ConfigurationError: it can not be made or written, or another run holds it.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"--data, SMTP_PROXY_DATA_DIR: can not use {self.path}: {error.strerror}"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ConfigurationError(
                f"--data, SMTP_PROXY_DATA_DIR: another `smtp-proxy dev` runs on {self.path}; "
                "stop it, or give this one a --data of its own"
            ) from None

    def close(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def secrets(self) -> Secrets:
        """Generate what is missing.

        Raises:
            ConfigurationError: the file is damaged; or the database's password is lost while its data is there.
        """
        kept = self.read_json(_SECRETS)
        if not kept.get("db_password") and (self.path / "postgres" / "PG_VERSION").exists():
            raise ConfigurationError(
                f"{self.path / _SECRETS} has no db_password, and nothing else opens {self.path / 'postgres'}: "
                "restore it, or use another --data"
            )
        names = Secrets.__dataclass_fields__
        found = Secrets(**{name: str(kept.get(name) or secrets.token_hex(_SECRET_BYTES)) for name in names})
        if asdict(found) != kept:
            self.write_json(_SECRETS, asdict(found))
        return found

    def secret_key(self) -> None:
        """Make SECRET_KEY_FILE unless it is there. Raises ConfigurationError."""
        if not (self.path / SECRET_KEY).exists():
            self.write(SECRET_KEY, new_key_line())

    def read_json(self, name: str) -> dict[str, Any]:
        """An object kept here; empty when there is none. Raises ConfigurationError when it is damaged."""
        file = self.path / name
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            hint = "restore it, or use another --data" if name == _SECRETS else "delete it"
            raise ConfigurationError(f"{file} can not be read: {error}; {hint}") from None
        return value if isinstance(value, dict) else {}

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Keep an object. Raises ConfigurationError."""
        self.write(name, json.dumps(value, indent=2) + "\n")

    def write(self, name: str, text: str) -> Path:
        """Keep a text that nobody else may read. Raises ConfigurationError."""
        return write_private(self.path / name, text)


def write_private(file: Path, text: str) -> Path:
    """Put a file in place whole, readable by its owner alone from the first moment.

    Raises:
        ConfigurationError: names the file.
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
        part.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise ConfigurationError(f"{file} can not be written: {error.strerror}") from None
    return file
