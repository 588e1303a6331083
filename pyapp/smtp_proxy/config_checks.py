"""What the value of a setting may be, where a range does not say it. Each raises ValueError, for operators to read."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

# RFC 1035 2.3.4: octets. An underscore is no part of a host's name in RFC 1123 2.1, but containers have it.
_HOSTNAME_MAX_BYTES = 253
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)

# Of AWS: CreateUser and CreateReplicationGroup in ElastiCache's API reference.
_USER_OF_CACHE = re.compile(r"[a-z][a-z0-9-]{0,39}@[a-z][a-z0-9-]{0,39}")
# GetSecretValue, CreateSecret in that of Secrets Manager.
_SECRET_NAME = re.compile(r"(arn:[a-z-]+:secretsmanager:[a-z0-9-]+:\d{12}:secret:)?[A-Za-z0-9/_+=.@-]{1,512}", re.ASCII)
# What needs no quotes, in SQL and in an ARN of rds-db:connect. PostgreSQL keeps names of 63 bytes.
_ROLE = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)
# 32 bytes in base64 (RFC 4648 4).
_PIN = re.compile(r"sha256/[A-Za-z0-9+/]{43}=", re.ASCII)


def one_word(value: str) -> str:
    """Something that can stand for a host."""
    if not _is_one_word(value):
        raise ValueError("must be a host name or an address")
    return value


def hostname(value: str) -> str:
    """Our own name, which goes over the wire."""
    if not value.isascii():
        raise ValueError("must be ASCII: write the A-label (xn--…) of an international name")
    if not (_is_dns_name(value) or _is_address(value)):
        raise ValueError("must be a host name, such as mail.example.com, or an address")
    return value


def pins(value: str) -> str:
    """Of public keys, with commas between."""
    for pin in _listed(value.split(",")):
        if not _PIN.fullmatch(pin):
            raise ValueError(f"{pin!r} is no pin: write sha256/ and 44 characters of base64")
    return value


def networks(value: object) -> str:
    """With commas between, or a list of them."""
    named = _listed(map(str, value) if isinstance(value, list | tuple) else str(value).split(","))
    for text in named:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            raise ValueError(f"{error}; write networks such as 10.0.0.0/16,2001:db8::/56") from None
    return ",".join(named)


def redis_url(url: str) -> None:
    """It can be used. Nothing of it is repeated, since part of it may be a password."""
    try:
        trouble = _redis_url_trouble(url)
    except ValueError:  # its text may quote what is a password
        trouble = "must be a URL"
    if trouble:
        raise ValueError(
            f"{trouble}; write redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss://… for TLS, or "
            "unix://[[USER]:PASSWORD@]/PATH, and in a password % as %25, / as %2F, ? as %3F, # as %23, @ as %40, "
            "[ as %5B, ] as %5D"
        )


def redis_cluster_url(url: str) -> None:
    """A cluster has no databases but the first, and its nodes are found by address. Nothing of it is repeated."""
    parts = urlsplit(url)
    if parts.scheme == "unix" or parts.path.strip("/") not in ("", "0"):
        raise ValueError(
            "REDIS_CLUSTER needs a REDIS_URL that begins with redis:// or rediss:// and names no database but 0"
        )


def role_name(value: str) -> str:
    """Of Postgres; or nothing."""
    if value and not _ROLE.fullmatch(value):
        raise ValueError("must be lower-case letters, digits and underscores, 63 at most, such as smtp_proxy_app")
    return value


def database_login(*, iam: bool, sslmode: str, ca: bool, direct_user: str) -> None:
    """How Postgres is logged in to fits together."""
    if iam and sslmode in ("disable", "prefer"):
        raise ValueError("DB_IAM needs DB_SSLMODE=require, verify-ca or verify-full: tokens are taken by TLS alone")
    if ca and sslmode not in ("verify-ca", "verify-full"):
        raise ValueError("DB_CA_FILE needs DB_SSLMODE=verify-ca or verify-full: nothing is verified otherwise")
    if direct_user and not iam:
        raise ValueError("DB_DIRECT_USER needs DB_IAM: there is one password, and it is DB_USER's")


def database_roles(owner: str, login: str, proxy_login: str, proxy_secret: str) -> None:
    """The roles that `smtp-proxy migrate` makes fit together."""
    if (login or proxy_login) and not owner:
        raise ValueError("MIGRATE_LOGIN and MIGRATE_PROXY_LOGIN need MIGRATE_OWNER: they are made members of it")
    if bool(proxy_login) != bool(proxy_secret):
        raise ValueError("MIGRATE_PROXY_LOGIN and MIGRATE_PROXY_SECRET go together: set both or neither")
    named = [role for role in (owner, login, proxy_login) if role]
    if len(set(named)) < len(named):
        raise ValueError("MIGRATE_OWNER, MIGRATE_LOGIN and MIGRATE_PROXY_LOGIN are roles of their own: none is another")


def redis_login(url: str) -> bool:
    """Whether a user or a password is in it."""
    parts = urlsplit(url)
    return bool(parts.username or parts.password)


def user_of_cache(value: str) -> str:
    """USER@CACHE, as ElastiCache names both."""
    if value and not _USER_OF_CACHE.fullmatch(value):
        raise ValueError(
            "must be USER@CACHE: the id of a user that logs in by IAM, and of the replication group, both in lower case"
        )
    return value


def secret_reference(value: str) -> str:
    """A secret of AWS. Nothing of it is repeated, since somebody may have put the secret itself there."""
    name, _, _ = value.partition("#")
    if name and not _SECRET_NAME.fullmatch(name):
        raise ValueError(
            "must be the ARN or the name of a secret of AWS, and after a # the key of a value within its JSON: "
            "arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME#password"
        )
    if value and not name:
        raise ValueError("must name a secret before the #")
    return value


def _listed(texts: Iterable[str]) -> list[str]:
    return [text.strip() for text in texts if text.strip()]


def _is_one_word(text: str) -> bool:
    return bool(text) and not any(c.isspace() or ord(c) < 0x20 for c in text)


def _is_dns_name(text: str) -> bool:
    return len(text) <= _HOSTNAME_MAX_BYTES and all(_LABEL.fullmatch(label) for label in text.split("."))


def _is_address(text: str) -> bool:
    """An IP address, bare or as an address literal of RFC 5321 4.1.3."""
    bare = text
    if text.startswith("[") and text.endswith("]"):
        bare = text[1:-1].removeprefix("IPv6:")
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return False
    return True


def _redis_url_trouble(url: str) -> str | None:
    """What is wrong with it, in words that hold nothing of it. Raises ValueError, of which that is not sure."""
    parts = urlsplit(url)
    host = unquote(parts.hostname or "")
    if parts.scheme not in ("redis", "rediss", "unix"):
        return "must begin with redis://, rediss:// or unix://"
    if parts.query:
        parse_qs(parts.query, strict_parsing=True)  # the options of redis-py; it forgives what is none
    if parts.scheme == "unix":
        if parts.netloc.rpartition("@")[2] or not parts.path:
            return "must name a socket by its whole path"
    elif not _is_one_word(host):
        return "must name a host"
    elif not _has_usable_port(parts):
        return "must have a port of 1 to 65535"
    elif not re.fullmatch(r"[0-9]*", parts.path.strip("/"), re.ASCII):
        return "must have the number of a database, if anything, after the host"
    return "must have no # in it" if parts.fragment else None


def _has_usable_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False
