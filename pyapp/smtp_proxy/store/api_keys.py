"""Keys of the HTTP API: a part of `Store`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from smtp_proxy.model.api_key import ApiKey, ApiScope
from smtp_proxy.store.accounts import present
from smtp_proxy.store.ids import new_id
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import asyncpg

    from smtp_proxy.clock import Clock
    from smtp_proxy.store.pool import Connection


class ApiKeys:
    """A part of `Store`, which brings the connections."""

    _clock: Clock

    def _connection(self, doing: str) -> AbstractAsyncContextManager[Connection]:
        raise NotImplementedError

    async def create_api_key(
        self, tenant: str, name: str, digest: bytes, scopes: Iterable[ApiScope], expires_at: datetime | None = None
    ) -> ApiKey:
        """Keep a new one of that tenant (by name). Raises NotFound, AlreadyExists: it has a valid one of that name."""
        now = self._clock.now()
        values = (tenant, name, digest, sorted(scopes), now, expires_at)
        async with self._connection(f"creating the API key {name} of tenant {tenant}") as connection:
            row = await connection.fetchrow(QUERIES["create_api_key"], new_id(now), *values)
        return _api_key(present(row, f"tenant {tenant}"))

    async def list_api_keys(self, tenant_id: UUID | None = None) -> list[ApiKey]:
        """Of one tenant or of all, revoked ones too; by tenant and name, older ones first."""
        async with self._connection("listing API keys") as connection:
            return [_api_key(row) for row in await connection.fetch(QUERIES["list_api_keys"], tenant_id)]

    async def api_key_by_digest(self, digest: bytes) -> ApiKey | None:
        """Whatever has become of it; None when there is none."""
        async with self._connection("looking up an API key") as connection:
            row = await connection.fetchrow(QUERIES["api_key_by_digest"], digest)
        return None if row is None else _api_key(row)

    async def revoke_api_key(self, tenant: str, name: str) -> ApiKey:
        """It opens nothing from now on. Raises NotFound: no such key, or it is revoked already."""
        async with self._connection(f"revoking the API key {name} of tenant {tenant}") as connection:
            row = await connection.fetchrow(QUERIES["revoke_api_key"], tenant, name, self._clock.now())
        return _api_key(present(row, f"API key {name} of tenant {tenant} that is not revoked"))

    async def note_api_key_used(self, key_id: UUID) -> None:
        """Remember that it was used now, which is looked at when keys are cleared up."""
        async with self._connection("noting the use of an API key") as connection:
            await connection.execute(QUERIES["note_api_key_used"], key_id, self._clock.now())


def _api_key(row: asyncpg.Record) -> ApiKey:
    known = frozenset(map(str, ApiScope))
    scopes = frozenset(ApiScope(scope) for scope in row["scopes"] if scope in known)
    return ApiKey(**{**dict(row), "scopes": scopes})
