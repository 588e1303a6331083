"""The logins that settings name by a secret: of Postgres, Redis, the smarthost; and the keys that seal.

Each takes JSON as AWS makes it (RDS: `username`, `password`, and with a rotation function `host`, `port`, `dbname`), or
the bare password. What a setting says by itself is stronger than what the secret says.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from smtp_proxy.aws.secrets import ManagedSecret, SecretValue, managed
from smtp_proxy.errors import ConfigurationError, SecretMissing, SecretUnavailable
from smtp_proxy.sealing import SecretKeys, parse_keys, read_keys

if TYPE_CHECKING:
    from smtp_proxy.config import Settings
    from smtp_proxy.telemetry.lifecycle import Lifecycle

log = logging.getLogger(__name__)

# Whoever is refused may come before the rotation is done: Postgres has the new password a moment earlier than the
# secret's current version. So often it is read again, after so many seconds, each shortened or prolonged by half.
PAUSES_SECONDS: Final = (0.0, 0.7, 1.5)
_JITTER: Final = 0.5
_AGAIN_SECONDS: Final = 5.0  # as a secret is looked for that has no value yet
_DATABASE: Final = {"username": "db_user", "host": "db_host", "port": "db_port", "dbname": "db_name"}


class Login:
    """User and password out of one secret."""

    def __init__(self, secret: ManagedSecret) -> None:
        self._secret = secret

    async def read(self) -> SecretValue:
        """Raises ConfigurationError, SecretUnavailable."""
        return await self._secret.read_soon()

    async def renew(self, refused: SecretValue) -> bool:
        """Read again, since this one was refused. Whether there is another now. Never raises."""
        return await self._secret.renew_soon(refused) is not refused

    def password(self, value: SecretValue) -> str:
        """Raises ConfigurationError."""
        return password_in(value, self._secret.setting)


async def pause(seconds: float) -> None:
    """So long, more or less: the fleet was refused at the same time, and shall not ask at the same time."""
    await asyncio.sleep(seconds * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 - no secret


def database_login(settings: Settings) -> Login | None:
    """Of Postgres; None: DB_SECRET is not set."""
    return Login(managed("DB_SECRET", settings.db_secret)) if settings.db_secret else None


def redis_login(settings: Settings) -> Login | None:
    """Of Redis; None: REDIS_SECRET is not set."""
    return Login(managed("REDIS_SECRET", settings.redis_secret)) if settings.redis_secret else None


def with_database(settings: Settings, login: Login, value: SecretValue) -> Settings:
    """The settings, with what the secret says of Postgres. Raises ConfigurationError."""
    said = {name: value.fields[key] for key, name in _DATABASE.items() if value.fields.get(key)}
    said = {name: text for name, text in said.items() if name not in settings.model_fields_set}
    return _with(settings, "DB_SECRET", {**said, "db_password": login.password(value)})


def with_smarthost(settings: Settings) -> Settings:
    """The settings, with the smarthost's login if SMARTHOST_SECRET names it. Raises as `ManagedSecret.read`."""
    if not settings.smarthost_secret:
        return settings
    value = managed("SMARTHOST_SECRET", settings.smarthost_secret).read()
    said = {"smarthost_password": password_in(value, "SMARTHOST_SECRET")}
    if value.fields.get("username") and "smarthost_username" not in settings.model_fields_set:
        said["smarthost_username"] = value.fields["username"]
    return _with(settings, "SMARTHOST_SECRET", said)


def sealing_keys(settings: Settings) -> SecretKeys:
    """The keys that seal: of SECRET_KEY_SECRET, else of SECRET_KEY_FILE. Raises as `ManagedSecret.read`."""
    if not settings.secret_key_secret:
        return read_keys(settings.secret_key_file)
    text = managed("SECRET_KEY_SECRET", settings.secret_key_secret).read().text
    return parse_keys(text, "SECRET_KEY_SECRET")


async def sealing_keys_when_there(settings: Settings, lifecycle: Lifecycle) -> SecretKeys | None:
    """As `sealing_keys`; with START_WAITS once the secret has a value. None: told to stop meanwhile."""
    while not lifecycle.stopping:
        try:
            return await asyncio.to_thread(sealing_keys, settings)
        except (SecretMissing, SecretUnavailable) as error:
            if not settings.start_waits:
                raise
            log.warning("waiting for the keys that seal: %s", error, extra={"action": "secret_awaited"})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_SECONDS):
                    await lifecycle.stopped()
    return None


def password_in(value: SecretValue, setting: str) -> str:
    """A bare password, or `password` or `auth_token` of its JSON. Raises ConfigurationError."""
    if not value.fields:
        return value.text
    for key in ("password", "auth_token"):
        if value.fields.get(key):
            return value.fields[key]
    raise ConfigurationError(f"{setting}: the secret's JSON has no `password`: name its key after a #")


def _with(settings: Settings, setting: str, said: Mapping[str, Any]) -> Settings:
    values = {**{name: getattr(settings, name) for name in settings.model_fields_set}, **said}
    # What the secret says takes the place of its name: the two together would be one too many.
    values = {name: value for name, value in values.items() if name != setting.lower()}
    try:
        filled = type(settings).model_validate(values)
    except ValidationError as error:
        names = ", ".join(sorted({str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}))
        raise ConfigurationError(f"{setting}: what the secret says can not be used: {names}") from None
    return filled
