"""The domains of a tenant and the keys that sign for them: made, rotated, and told as DNS records.

A key is published before it signs, and stays published for days after it has stopped, since mail that it signed is
under way (RFC 6376 3.6.2.1 has selectors for that). So keys overlap: a rotation adds the next ones and lets the old
ones end when those begin.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

import idna
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from smtp_proxy.errors import InvalidValue, NotFound
from smtp_proxy.model.domain import Domain, DomainKey
from smtp_proxy.store.ids import new_id

if TYPE_CHECKING:
    from smtp_proxy.sealing import SecretKeys
    from smtp_proxy.store import Store

Algorithm = Literal["rsa-sha256", "ed25519-sha256"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("rsa-sha256", "ed25519-sha256")
_RSA_BITS: Final = 2048  # RFC 8301 3.2
_TXT_STRING: Final = 255  # RFC 1035 3.3: octets of one character-string


@dataclass(frozen=True, slots=True)
class Record:
    """A TXT record of a key, and whether it must be there: `signs`, `next`, or `retired` (until `until`)."""

    name: str
    text: str
    selector: str
    state: Literal["signs", "next", "retired"]
    signs_from: datetime
    until: datetime | None = None

    @property
    def zone_line(self) -> str:
        """As in a zone file, in strings of at most 255 octets."""
        strings = (self.text[at : at + _TXT_STRING] for at in range(0, len(self.text), _TXT_STRING))
        return f"{self.name}. 3600 IN TXT " + " ".join(f'"{string}"' for string in strings)


def domain_name(text: str) -> str:
    """The name as it is kept: A-labels, lower case. Raises InvalidValue."""
    try:
        name = idna.encode(text.strip().rstrip("."), uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError) as error:
        raise InvalidValue(f"{text!r} is no domain: {error}") from None
    if "." not in name:
        raise InvalidValue(f"{text!r} is no domain that mail can be from: it has one label")
    return name


def new_keys(
    secret_keys: SecretKeys, algorithms: Sequence[Algorithm], now: datetime, signs_from: datetime
) -> list[DomainKey]:
    """Make a key of each kind, with selectors that tell the day. Raises ConfigurationError: there is no secret key."""
    stem = f"sp{now:%Y%m%d}{secrets.token_hex(2)}"
    return [_new_key(secret_keys, algorithm, f"{stem}{algorithm[0]}", now, signs_from) for algorithm in algorithms]


async def add_domain(
    store: Store, secret_keys: SecretKeys, tenant: str, name: str, algorithms: Sequence[Algorithm], now: datetime,
    publish_seconds: float,
) -> Domain:  # fmt: skip
    """Give a tenant a domain with its first keys. Raises NotFound, AlreadyExists, InvalidValue, ConfigurationError."""
    owner = await store.tenant_by_name(tenant)
    keys = new_keys(secret_keys, algorithms, now, now + timedelta(seconds=publish_seconds))
    return await store.add_domain(owner.id, domain_name(name), keys)


async def rotate(
    store: Store, secret_keys: SecretKeys, domain: Domain, now: datetime, publish_seconds: float, retire_seconds: float
) -> Domain:
    """Add the next keys, of the kinds that the domain has. Raises InvalidValue when the last rotation is not over."""
    if waiting := [key.selector for key in domain.keys if key.signs_from > now]:
        raise InvalidValue(f"{', '.join(waiting)} of {domain.name} does not sign yet; rotate when it does")
    kinds = [kind for kind in ALGORITHMS if any(k.algorithm == kind and k.signs_at(now) for k in domain.keys)]
    keys = new_keys(secret_keys, kinds or ALGORITHMS, now, now + timedelta(seconds=publish_seconds))
    await store.rotate_domain(domain.id, keys, now - timedelta(seconds=retire_seconds))
    return (await find(store, domain.name, domain.tenant_id))[0]


async def find(store: Store, name: str, tenant_id: object = None) -> list[Domain]:
    """Domains of that name, each of another tenant. Raises NotFound, InvalidValue."""
    found = await store.list_domains(tenant_id, domain_name(name))  # type: ignore[arg-type]
    if not found:
        raise NotFound(f"there is no domain {name}; `smtp-proxy domains add` makes one")
    return found


def records(domain: Domain, now: datetime, retire_seconds: float) -> list[Record]:
    """Every record that has to be in the DNS now; what has been retired for long enough is left out."""
    found = []
    for key in domain.keys:
        until = None if key.signs_until is None else key.signs_until + timedelta(seconds=retire_seconds)
        if until is None or until > now:
            state: Literal["signs", "next", "retired"] = "signs" if key.signs_at(now) else "retired"
            state = "next" if key.signs_from > now else state
            name = f"{key.selector}._domainkey.{domain.name}"
            found.append(Record(name, record_text(key), key.selector, state, key.signs_from, until))
    return found


def record_text(key: DomainKey) -> str:
    """RFC 6376 3.6.1, RFC 8463 4."""
    kind = key.algorithm.partition("-")[0]
    return f"v=DKIM1; k={kind}; h=sha256; p={base64.b64encode(key.public_key).decode()}"


def _new_key(
    secret_keys: SecretKeys, algorithm: Algorithm, selector: str, now: datetime, signs_from: datetime
) -> DomainKey:
    if algorithm == "rsa-sha256":
        rsa = generate_private_key(65537, _RSA_BITS)
        public = rsa.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        private = rsa.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    else:
        ed25519 = Ed25519PrivateKey.generate()
        public = ed25519.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        private = ed25519.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    key_id = new_id(now)
    sealed = secret_keys.seal(private, f"domain_keys.sealed_key of {key_id}")
    return DomainKey(key_id, selector, algorithm, public, sealed, now, signs_from)
