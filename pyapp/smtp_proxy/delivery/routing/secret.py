"""Secrets that the routes file points to: it names a file or an environment variable, and never holds one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator


class SecretReference(BaseModel):
    """`{ file = "/run/secrets/x" }` or `{ env = "X" }`; a file's last line end is no part of the secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path | None = None
    env: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is None) == (self.env is None):
            raise ValueError('name one place: { file = "/path" } or { env = "NAME" }')
        return self

    def read(self) -> SecretStr:
        """Fetch it. Raises ValueError, which names the place and never holds the secret."""
        if self.env is not None:
            if self.env not in os.environ:
                raise ValueError(f"the environment variable {self.env} is not set")
            value = os.environ[self.env]
        else:
            value = _content(self.file or Path())
        if not value or any(ord(character) < 0x20 for character in value):
            raise ValueError(f"the secret in {self.env or self.file} is empty or holds control characters")
        return SecretStr(value)


def _content(file: Path) -> str:
    try:
        return file.read_text("utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ValueError(f"{file} can not be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} is no UTF-8 text") from None
