"""Tenants and their credentials."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from smtp_proxy.model.limits import TenantLimits


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
    """A login of a tenant. `password_hash` is argon2id in PHC format."""

    id: UUID
    tenant_id: UUID
    username: str
    password_hash: str
    created_at: datetime
    disabled_at: datetime | None = None

    def __repr__(self) -> str:
        return f"Credential(id={self.id}, username={self.username!r})"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a session has logged in as."""

    tenant_id: UUID
    credential_id: UUID
    username: str
