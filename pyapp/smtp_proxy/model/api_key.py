"""Keys of the HTTP API: whose they are and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class ApiScope(StrEnum):
    """What a key may do; each is asked for by itself, and none stands for another."""

    SUPPRESSIONS_READ = "suppressions:read"
    SUPPRESSIONS_WRITE = "suppressions:write"
    MESSAGES_READ = "messages:read"
    MESSAGES_WRITE = "messages:write"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept: not the key itself, of which only the digest is.

    `scopes`: a scope of a later release is not among them, so that what this one does not know it does not allow.
    """

    id: UUID
    tenant_id: UUID
    tenant: str
    name: str
    scopes: frozenset[ApiScope]
    created_at: datetime
    expires_at: datetime | None = None  # None: never
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None  # to the hour
    tenant_disabled: bool = False

    def is_valid(self, now: datetime) -> bool:
        """Whether it opens anything at that time."""
        ended = self.expires_at is not None and self.expires_at <= now
        return self.revoked_at is None and not ended and not self.tenant_disabled
