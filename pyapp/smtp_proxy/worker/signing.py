"""Signs what leaves, with the keys that the store has for the domain a message is from.

The domain is that of From, or one above it, and so aligned for DMARC (RFC 7489 3.1.1); else that of the reverse-path.
It is always one of the tenant's own: nobody signs for another tenant's domain, whatever From says.

All keys are in memory, and read again when the database tells of a change; while it is away the last known ones sign.
A key that does not open keeps its domain's mail waiting (CannotSign), since unsigned it might be taken for forged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from email.utils import getaddresses
from typing import TYPE_CHECKING, Final
from uuid import UUID

import idna
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key

from smtp_proxy.delivery import dkim
from smtp_proxy.delivery.sign import CannotSign
from smtp_proxy.delivery.wire import header_of
from smtp_proxy.errors import ConfigurationError, StoreUnavailable
from smtp_proxy.telemetry.tasks import end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime
    from typing import Protocol

    from smtp_proxy.clock import Clock
    from smtp_proxy.model.domain import Domain, DomainKey
    from smtp_proxy.model.envelope import Envelope
    from smtp_proxy.sealing import SecretKeys

    class DomainStore(Protocol):
        """The part of `store.Store` that is asked."""

        async def list_domains(self) -> list[Domain]: ...

        async def listen_domains(self, callback: Callable[[], None]) -> None: ...


log = logging.getLogger(__name__)

# Above this a message is signed in a thread, so that the others are not kept waiting for its hash. Bytes.
_LARGE_BYTES: Final = 128 * 1024
_AGAIN_SECONDS: Final = 2.0
_WHERE: Final = "see `smtp-proxy domains list` and SECRET_KEY_FILE"


class DomainSigner:
    """See `delivery.sign.Signer`. `load` before the first message, then `run` beside them."""

    def __init__(self, store: DomainStore, secret_keys: SecretKeys, clock: Clock) -> None:
        self._store = store
        self._secret_keys = secret_keys
        self._clock = clock
        self._domains: dict[tuple[UUID, str], Domain] | None = None
        self._opened: dict[UUID, dkim.SigningKey] = {}
        self._changed = asyncio.Event()

    async def load(self) -> None:
        """Read all domains and keys. Raises StoreUnavailable; then the last ones stay."""
        domains = await self._store.list_domains()
        self._domains = {(domain.tenant_id, domain.name): domain for domain in domains}
        known = {key.id for domain in domains for key in domain.keys}
        self._opened = {key_id: key for key_id, key in self._opened.items() if key_id in known}

    async def run(self) -> None:
        """Keep up with the store until cancelled."""
        listening = asyncio.create_task(self._store.listen_domains(self._changed.set), name="listen-domains")
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                try:
                    await self.load()
                except StoreUnavailable as error:
                    log.warning("signing with the keys known so far: %s", error, extra={"action": "keys_not_read"})
                    self._changed.set()
                    await asyncio.sleep(_AGAIN_SECONDS)
        finally:
            await end([listening])

    async def headers(self, envelope: Envelope, *, alone: bool = False) -> bytes:
        """See Signer."""
        if self._domains is None:
            raise CannotSign("the signing keys are not read yet")
        if not self._domains:
            return b""
        now = self._clock.now()
        domain = self._domain_of(envelope)
        keys = [] if domain is None else [self._open(domain, key) for key in domain.keys if key.signs_at(now)]
        if not keys:
            return b""
        if alone:
            keys = [_most_trusted(keys)]
        left_out = dkim.REPLACED if alone else frozenset()
        if len(envelope.body) > _LARGE_BYTES:
            return await asyncio.to_thread(_sign, envelope, keys, now, left_out)
        return _sign(envelope, keys, now, left_out)

    def _domain_of(self, envelope: Envelope) -> Domain | None:
        assert self._domains is not None  # noqa: S101 - asked by `headers`
        for written in senders(envelope):
            for name in above(written):
                domain = self._domains.get((envelope.tenant_id, name))
                if domain is not None:
                    return domain
        return None

    def _open(self, domain: Domain, key: DomainKey) -> dkim.SigningKey:
        opened = self._opened.get(key.id)
        if opened is None:
            try:
                private = load_der_private_key(self._secret_keys.open(key.sealed, key.context), None)
            except (ConfigurationError, ValueError) as error:
                log.error("no mail of %s leaves: %s", domain.name, error, extra={"action": "key_does_not_open"})  # noqa: TRY400
                raise CannotSign(f"the signing key {key.selector} of {domain.name} does not open; {_WHERE}") from None
            if not isinstance(private, RSAPrivateKey | Ed25519PrivateKey):
                raise CannotSign(f"the signing key {key.selector} of {domain.name} is of an unknown kind")
            opened = self._opened[key.id] = dkim.SigningKey(domain.name, key.selector, private)
        return opened


def senders(envelope: Envelope) -> Iterator[str]:
    """Domains a message is from: those of From, then that of the reverse-path."""
    fields = dkim.header_fields(header_of(envelope.body))
    values = [field.partition(b":")[2].decode("utf-8", "replace") for name, field in fields if name == b"from"]
    for address in [*(address for _, address in getaddresses(values)), envelope.reverse_path]:
        domain = address.rpartition("@")[2] if "@" in address else ""
        if domain:
            yield domain


def above(domain: str) -> Iterator[str]:
    """The domain in A-labels and those above it, down to two labels; nothing for what is none."""
    try:
        name = idna.encode(domain.strip().rstrip("."), uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        return
    while "." in name:
        yield name
        name = name.partition(".")[2]


def _most_trusted(keys: Sequence[dkim.SigningKey]) -> dkim.SigningKey:
    """RSA, which every verifier knows; another where there is none."""
    return next((key for key in keys if key.algorithm == "rsa-sha256"), keys[0])


def _sign(
    envelope: Envelope, keys: Sequence[dkim.SigningKey], now: datetime, leaving_out: AbstractSet[bytes] = frozenset()
) -> bytes:
    return dkim.sign(envelope.body, keys, int(now.timestamp()), leaving_out=leaving_out)
