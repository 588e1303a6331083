"""Tenants and their credentials."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import TypeAlias
from uuid import UUID

from smtp_proxy.model.lane import Lane
from smtp_proxy.model.limits import TenantLimits

Network: TypeAlias = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Tenant:
    """A team whose applications submit mail."""

    id: UUID
    name: str
    created_at: datetime
    disabled_at: datetime | None = None
    limits: TenantLimits = field(default_factory=TenantLimits)


@dataclass(frozen=True, slots=True)
class Credential:
    """A login of a tenant. `password_hash` is argon2id in PHC format; no `allowed_networks`: from everywhere."""

    id: UUID
    tenant_id: UUID
    username: str
    password_hash: str
    created_at: datetime
    disabled_at: datetime | None = None
    allowed_senders: tuple[str, ...] = ()  # patterns of reverse-paths; none: any
    allowed_networks: tuple[Network, ...] = ()
    lane: Lane | None = None  # of its mail, unless the message says otherwise; None: as its tenant's

    def __repr__(self) -> str:
        return f"Credential(id={self.id}, username={self.username!r})"


@dataclass(frozen=True, slots=True)
class CertificateIdentity:
    """What of a client certificate logs in as `username`.

    `identity` is `sha256:` and the certificate's fingerprint, or one of its names: `dns:`, `email:`, `uri:`, `ip:`,
    `cn:`.
    """

    identity: str
    username: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a session has logged in as."""

    tenant_id: UUID
    credential_id: UUID
    username: str
    senders: tuple[str, ...] = ()  # Credential.allowed_senders, as they were at the login
