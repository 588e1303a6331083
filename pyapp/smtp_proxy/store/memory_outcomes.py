"""Suppressions and policies of tenants, of the store in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from smtp_proxy.clock import Clock
from smtp_proxy.model.mailbox import mailbox_key
from smtp_proxy.model.outcome import Suppression
from smtp_proxy.model.policy import TenantPolicy
from smtp_proxy.model.tenant import Tenant


class MemoryOutcomes:
    """A part of MemoryStore, beside MemoryAccounts."""

    _clock: Clock
    _tenants: dict[str, Tenant]
    _policies: dict[str, TenantPolicy]

    def __init__(self) -> None:
        self._suppressions: dict[tuple[UUID, str], Suppression] = {}

    def _reachable(self) -> None:
        raise NotImplementedError

    async def tenant_policies(self) -> dict[UUID, TenantPolicy]:
        self._reachable()
        return {self._tenants[name].id: policy for name, policy in self._policies.items() if policy != TenantPolicy()}

    async def list_suppressions(
        self, tenant_id: UUID, *, after: str = "", limit: int = 1000, address: str | None = None
    ) -> list[Suppression]:
        self._reachable()
        wanted = None if address is None else mailbox_key(address)
        found = [s for (owner, _), s in sorted(self._suppressions.items()) if owner == tenant_id and s.address > after]
        return [s for s in found if wanted in (None, s.address)][:limit]

    async def add_suppressions(self, tenant_id: UUID, addresses: Sequence[str], reason: str) -> int:
        self._reachable()
        return sum(self._suppress(Suppression(tenant_id, address, reason)) for address in addresses)

    async def remove_suppressions(self, tenant_id: UUID, addresses: Sequence[str]) -> list[str]:
        self._reachable()
        keys = dict.fromkeys(map(mailbox_key, addresses))
        there = [key for key in keys if (tenant_id, key) in self._suppressions]
        for address in there:
            del self._suppressions[tenant_id, address]
        return there

    def _suppress(self, suppression: Suppression) -> bool:
        key = (suppression.tenant_id, mailbox_key(suppression.address))
        if key in self._suppressions:
            return False
        self._suppressions[key] = replace(suppression, address=key[1], created_at=self._clock.now())
        return True

    def _suppressed(self, tenant_id: UUID, address: str) -> str | None:
        found = self._suppressions.get((tenant_id, mailbox_key(address)))
        return None if found is None else found.reason
