"""What tenants, usernames, mailboxes and the identities of certificates may be called."""

from __future__ import annotations

import ipaddress
import re
import unicodedata

from smtp_proxy.core import is_mailbox
from smtp_proxy.errors import InvalidValue

_TENANT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# Characters. RFC 4616 allows PLAIN up to 255 octets of authcid in common practice; the database has no limit.
_USERNAME_MAX = 255
# Bytes. argon2 takes more, but a password that does not fit a mail client's dialog is a mistake.
_PASSWORD_MAX = 1024
_PASSWORD_MIN = 8
# Of what can not be used, in a message.
_SHOWN = 80
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
# As the core names what a certificate says (core_rs/server/src/tls/client.rs).
_NAME_KINDS = frozenset({"dns", "email", "uri", "ip", "cn"})


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


def mailbox(text: str) -> str:
    """The address of a recipient, without blanks around it, if RCPT would take it.

    Raises:
        InvalidValue: says what one looks like; no more than the beginning of the text is in it.
    """
    address = text.strip()
    # U+FFFD: something that was no UTF-8 stood there, and nobody knows what.
    if any(unicodedata.category(c) == "Cs" or c == "\ufffd" for c in address) or not is_mailbox(address):
        raise InvalidValue(
            f"{address[:_SHOWN]!r} is no address: write local-part@domain alone, in 254 octets at most (RFC 5321 4.1.2)"
        )
    return address


def certificate_identity(text: str) -> str:
    """What of a client certificate shall stand for a login, in the form in which it is compared.

    Args:
        text: `sha256:` and 64 hexadecimal digits (colons and capitals are taken too, as OpenSSL prints them), or
            `dns:`, `email:`, `uri:`, `ip:`, `cn:` and a name.

    Raises:
        InvalidValue: says what is allowed.
    """
    kind, colon, value = text.strip().partition(":")
    kind, value = kind.lower(), value.strip()
    if kind == "sha256":
        value = value.replace(":", "").lower()
        if not _FINGERPRINT.fullmatch(value):
            raise InvalidValue(f"{text!r}: a SHA-256 fingerprint has 64 hexadecimal digits")
    elif not colon or kind not in _NAME_KINDS or not value or not value.isprintable() or len(value) > _USERNAME_MAX:
        raise InvalidValue(
            f"{text!r} is no identity of a certificate: write sha256:FINGERPRINT, or dns:, email:, uri:, ip: or cn: "
            f"and a name of at most {_USERNAME_MAX} characters"
        )
    elif kind == "dns":
        value = value.lower()
    elif kind == "email":
        local, _, domain = value.rpartition("@")
        value = f"{local}@{domain.lower()}"
    elif kind == "ip":
        value = _address(value)
    return f"{kind}:{value}"


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise InvalidValue(f"ip:{text} is no address") from None
