"""What tenants and usernames may be called."""

from __future__ import annotations

import re
import unicodedata

from smtp_proxy.errors import InvalidValue

_TENANT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# Characters. RFC 4616 allows PLAIN up to 255 octets of authcid in common practice; the database has no limit.
_USERNAME_MAX = 255
# Bytes. argon2 takes more, but a password that does not fit a mail client's dialog is a mistake.
_PASSWORD_MAX = 1024
_PASSWORD_MIN = 8


def tenant_name(name: str) -> str:
    """The name, if it is one: as in a DNS label, since it will be part of host names and paths.

    Raises:
        InvalidValue: says what is allowed.
    """
    if not _TENANT.fullmatch(name):
        raise InvalidValue(
            f"{name!r} can not name a tenant: 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends"
        )
    return name


def username(name: str) -> str:
    """The name, if it is one: printable, without spaces, normalised, so that what looks equal is equal.

    Raises:
        InvalidValue: says what is allowed.
    """
    if not name or len(name) > _USERNAME_MAX:
        raise InvalidValue(f"a username has 1 to {_USERNAME_MAX} characters, this one has {len(name)}")
    if not name.isprintable() or any(c.isspace() for c in name):
        raise InvalidValue(f"{name!r} can not be a username: no spaces and no control characters")
    if unicodedata.normalize("NFC", name) != name:
        raise InvalidValue(f"{name!r} can not be a username: write it in Unicode normal form C")
    return name


def password(secret: str) -> str:
    """The password, if it can be one.

    Raises:
        InvalidValue: without showing it.
    """
    size = len(secret.encode("utf-8", "surrogatepass"))
    if len(secret) < _PASSWORD_MIN or size > _PASSWORD_MAX:
        raise InvalidValue(f"a password has at least {_PASSWORD_MIN} characters and at most {_PASSWORD_MAX} bytes")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in secret):
        raise InvalidValue(
            "a password can not hold control characters: no client could send them (RFC 4616 forbids NUL)"
        )
    return secret
