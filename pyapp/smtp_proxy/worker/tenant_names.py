"""Tenants' names by id, for routes that are by tenant: read whole, since tenants are few, and again after a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from smtp_proxy.errors import StoreUnavailable

if TYPE_CHECKING:
    from typing import Protocol
    from uuid import UUID

    from smtp_proxy.clock import Clock
    from smtp_proxy.model.tenant import Tenant

    class TenantStore(Protocol):
        """The part of `store.Store` that is asked."""

        async def list_tenants(self) -> list[Tenant]: ...


_GOOD_SECONDS: Final = 60.0


class TenantNames:
    """Call it with an id. Raises StoreUnavailable if a name is not known and can not be asked for."""

    def __init__(self, clock: Clock) -> None:
        self._store: TenantStore | None = None
        self._clock = clock
        self._names: dict[UUID, str] = {}
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()

    def ask(self, store: TenantStore) -> None:
        """From now on there is a store to ask."""
        self._store = store

    async def __call__(self, tenant_id: UUID) -> str:
        if tenant_id in self._names and self._fresh:
            return self._names[tenant_id]
        async with self._lock:
            if tenant_id not in self._names or not self._fresh:
                await self._read(tenant_id)
        return self._names.get(tenant_id, "")

    @property
    def _fresh(self) -> bool:
        return self._clock.monotonic() < self._read_at + _GOOD_SECONDS

    async def _read(self, tenant_id: UUID) -> None:
        if self._store is None:
            raise StoreUnavailable
        try:
            self._names = {tenant.id: tenant.name for tenant in await self._store.list_tenants()}
            self._read_at = self._clock.monotonic()
        except StoreUnavailable:
            if tenant_id not in self._names:
                raise
