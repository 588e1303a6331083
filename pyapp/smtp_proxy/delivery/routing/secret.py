"""Secrets that the routes file points to: it names a file, a variable or a secret of AWS, and never holds one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator

from smtp_proxy import config_checks
from smtp_proxy.aws.logins import password_in
from smtp_proxy.aws.secrets import managed
from smtp_proxy.errors import ConfigurationError, SecretUnavailable

_SETTING: Final = "ROUTES_FILE"


class SecretReference(BaseModel):
    """`{ file = "/run/secrets/x" }`, `{ env = "X" }` or `{ aws = "ARN#KEY" }`.

    A file's last line end is no part of the secret. Of AWS it is read anew whenever the routes are, and looked at again
    when a login is refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path | None = None
    env: str | None = None
    aws: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if [self.file, self.env, self.aws].count(None) != 2:
            raise ValueError('name one place: { file = "/path" }, { env = "NAME" } or { aws = "ARN#KEY" }')
        if self.aws is not None:
            config_checks.secret_reference(self.aws)
        return self

    def read(self) -> SecretStr:
        """Fetch it. Raises ValueError, which names the place and never holds the secret."""
        if self.env is not None:
            if self.env not in os.environ:
                raise ValueError(f"the environment variable {self.env} is not set")
            value = os.environ[self.env]
        elif self.aws is not None:
            value = _managed(self.aws)
        else:
            value = _content(self.file or Path())
        if not value or any(ord(character) < 0x20 for character in value):
            raise ValueError(f"the secret in {self.env or self.aws or self.file} is empty or holds control characters")
        return SecretStr(value)

    def is_renewed(self) -> bool:
        """Ask AWS, if it is there, whether it is another by now than the one read last. Blocks; never raises."""
        if self.aws is None:
            return False
        secret = managed(_SETTING, self.aws)
        try:
            known = secret.read()  # What was read last: nobody is asked.
            return secret.fresh() is not known
        except (ConfigurationError, SecretUnavailable):
            return False


def _managed(reference: str) -> str:
    try:
        return password_in(managed(_SETTING, reference).fresh(), _SETTING)
    except (ConfigurationError, SecretUnavailable) as error:
        raise ValueError(str(error)) from None


def _content(file: Path) -> str:
    try:
        return file.read_text("utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ValueError(f"{file} can not be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} is no UTF-8 text") from None
