"""What all routers work with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from smtp_proxy.model.change import Change
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.model.message import Message, MessageSummary
from smtp_proxy.model.outcome import Suppression
from smtp_proxy.tenants import ApiKeyChecker
from smtp_proxy.tenants.api_keys import ApiKeyStore


class ApiStore(ApiKeyStore, Protocol):
    """What the API needs of the store."""

    async def list_suppressions(
        self, tenant_id: UUID, *, after: str = "", limit: int = 1000, address: str | None = None
    ) -> list[Suppression]: ...
    async def add_suppressions(self, tenant_id: UUID, addresses: Sequence[str], reason: str) -> int: ...
    async def remove_suppressions(self, tenant_id: UUID, addresses: Sequence[str]) -> list[str]: ...
    async def page_of_messages(
        self,
        *,
        tenant_id: UUID,
        state: DeliveryState | None,
        limit: int,
        before: UUID | None,
        patience_seconds: float,
    ) -> tuple[list[MessageSummary], UUID | None]: ...
    async def message(self, envelope_id: UUID) -> Message: ...
    async def change(self, change: Change, envelope_ids: Sequence[UUID]) -> list[UUID]: ...


@dataclass(frozen=True, slots=True)
class Desk:
    """What a request is answered with."""

    store: ApiStore
    keys: ApiKeyChecker
