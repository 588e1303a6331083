"""Keys of the HTTP API of the store in memory, with the same rules as in `Store`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from smtp_proxy.clock import Clock
from smtp_proxy.errors import AlreadyExists, NotFound
from smtp_proxy.model.api_key import ApiKey, ApiScope
from smtp_proxy.model.tenant import Tenant
from smtp_proxy.store.ids import new_id


class MemoryApiKeys:
    """A part of MemoryStore."""

    _clock: Clock

    def __init__(self) -> None:
        self._api_keys: dict[bytes, ApiKey] = {}

    async def tenant_by_name(self, name: str) -> Tenant:
        raise NotImplementedError

    def _reachable(self) -> None:
        raise NotImplementedError

    async def create_api_key(
        self, tenant: str, name: str, digest: bytes, scopes: Iterable[ApiScope], expires_at: datetime | None = None
    ) -> ApiKey:
        owner = await self.tenant_by_name(tenant)
        if digest in self._api_keys or self._named(tenant, name):
            raise AlreadyExists
        now = self._clock.now()
        key = ApiKey(new_id(now), owner.id, tenant, name, frozenset(scopes), now, expires_at)
        self._api_keys[digest] = key
        return key

    async def list_api_keys(self, tenant_id: UUID | None = None) -> list[ApiKey]:
        self._reachable()
        found = sorted(self._api_keys.values(), key=lambda key: (key.tenant, key.name, key.id))
        return [key for key in found if tenant_id in (None, key.tenant_id)]

    async def api_key_by_digest(self, digest: bytes) -> ApiKey | None:
        self._reachable()
        return self._api_keys.get(digest)

    async def revoke_api_key(self, tenant: str, name: str) -> ApiKey:
        self._reachable()
        for digest in self._named(tenant, name):
            self._api_keys[digest] = replace(self._api_keys[digest], revoked_at=self._clock.now())
            return self._api_keys[digest]
        raise NotFound

    async def note_api_key_used(self, key_id: UUID) -> None:
        self._reachable()
        for digest, key in self._api_keys.items():
            if key.id == key_id:
                self._api_keys[digest] = replace(key, last_used_at=self._clock.now())

    def _named(self, tenant: str, name: str) -> list[bytes]:
        """The digest of the one that is not revoked, if there is one."""
        named = (tenant, name, None)
        return [d for d, key in self._api_keys.items() if (key.tenant, key.name, key.revoked_at) == named]
