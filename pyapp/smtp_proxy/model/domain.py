"""Domains that a tenant sends from, and the keys that sign for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from smtp_proxy.sealing import Sealed


@dataclass(frozen=True, slots=True)
class DomainKey:
    """A key; its public half is published at SELECTOR._domainkey.DOMAIN (RFC 6376 3.6.2.1)."""

    id: UUID
    selector: str
    algorithm: str  # rsa-sha256 or ed25519-sha256
    public_key: bytes  # as the p= tag has it, before BASE64
    sealed: Sealed = field(repr=False)  # PKCS #8 (DER)
    created_at: datetime
    signs_from: datetime
    signs_until: datetime | None = None  # None: until it is replaced

    def signs_at(self, now: datetime) -> bool:
        return self.signs_from <= now and (self.signs_until is None or now < self.signs_until)

    @property
    def context(self) -> str:
        """What its sealed half is bound to."""
        return f"domain_keys.sealed_key of {self.id}"


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain of a tenant; `name` in A-labels, lower case. Keys oldest first."""

    id: UUID
    tenant_id: UUID
    name: str
    created_at: datetime
    keys: tuple[DomainKey, ...] = ()
