"""Secrets at rest: sealed with AES-256-GCM under a key that the database never sees.

The keys are in a file (SECRET_KEY_FILE), one a line, `ID:BASE64` of 32 bytes. The first one seals; every one of them
opens what it sealed, so a key is replaced by putting a new line on top, sealing everything anew
(`smtp-proxy secrets reseal`), and only then taking the old line out.

What is sealed is bound to its place (`context`: table, row, column): moved into another row it does not open.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from smtp_proxy.errors import ConfigurationError

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12  # NIST SP 800-38D 8.2: 96 bits
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")


@dataclass(frozen=True, slots=True)
class Sealed:
    """A secret as it is kept: which key opens it, and nonce with ciphertext."""

    key_id: str
    data: bytes


class SecretKeys:
    """The keys of an installation. `repr` shows their ids alone."""

    def __init__(self, keys: Mapping[str, bytes], source: str = "SECRET_KEY_FILE") -> None:
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._source = source
        self.current = next(iter(self._ciphers), "")

    def __repr__(self) -> str:
        return f"SecretKeys({', '.join(self._ciphers)})"

    def seal(self, secret: bytes, context: str) -> Sealed:
        """Seal for this place. Raises ConfigurationError when there is no key."""
        if not self.current:
            raise ConfigurationError(
                "SECRET_KEY_FILE is not set, so no secret can be kept in the database: "
                "`smtp-proxy secrets new-key FILE` makes such a file"
            )
        nonce = os.urandom(_NONCE_BYTES)
        return Sealed(self.current, nonce + self._ciphers[self.current].encrypt(nonce, secret, context.encode()))

    def open(self, sealed: Sealed, context: str) -> bytes:
        """Open what was sealed for this place. Raises ConfigurationError."""
        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            raise ConfigurationError(
                f"{self._source} has no key {sealed.key_id!r}, with which {context} was sealed: put its line back"
            )
        nonce, data = sealed.data[:_NONCE_BYTES], sealed.data[_NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, data, context.encode())
        except InvalidTag:
            raise ConfigurationError(
                f"{context} does not open with the key {sealed.key_id!r} of {self._source}: "
                "the key is another one of that name, or the row was changed"
            ) from None


def read_keys(file: Path | None) -> SecretKeys:
    """Read the file; None: there are no keys. Raises ConfigurationError, which never shows what is in the file."""
    if file is None:
        return SecretKeys({})
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise ConfigurationError(f"SECRET_KEY_FILE names {file}, which can not be read: {reason}") from None
    keys = _read_lines(lines, str(file))
    if not keys:
        raise ConfigurationError(f"{file} (SECRET_KEY_FILE) holds no key; `smtp-proxy secrets new-key FILE` makes one")
    return SecretKeys(keys, str(file))


def parse_keys(text: str, setting: str) -> SecretKeys:
    """What would be in the file, from elsewhere. Raises ConfigurationError, which shows nothing of the text."""
    keys = _read_lines(text.splitlines(), setting)
    if not keys:
        raise ConfigurationError(f"{setting} holds no key; store what `smtp-proxy secrets new-key FILE` writes")
    return SecretKeys(keys, setting)


def new_key_line() -> str:
    """A new key as a line of the file."""
    return f"{os.urandom(4).hex()}:{base64.b64encode(os.urandom(_KEY_BYTES)).decode()}\n"


def _read_lines(lines: list[str], where: str) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            key_id, key = _read_line(line.strip(), f"{where}, line {number}")
            if key_id in keys:
                raise ConfigurationError(f"{where}, line {number}: the id {key_id} is there twice")
            keys[key_id] = key
    return keys


def _read_line(line: str, where: str) -> tuple[str, bytes]:
    key_id, colon, encoded = line.partition(":")
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        key = b""
    if not colon or not _ID.fullmatch(key_id) or len(key) != _KEY_BYTES:
        raise ConfigurationError(f"{where}: write ID:BASE64 of {_KEY_BYTES} bytes; see `smtp-proxy secrets new-key`")
    return key_id, key
