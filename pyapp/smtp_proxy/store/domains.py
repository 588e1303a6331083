"""Domains and the keys that sign for them: a part of `Store`. Keys come and go sealed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from smtp_proxy.model.domain import Domain, DomainKey
from smtp_proxy.sealing import Sealed
from smtp_proxy.store.accounts import present
from smtp_proxy.store.ids import new_id
from smtp_proxy.store.listen import DOMAINS_CHANNEL, listen
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import asyncpg

    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings
    from smtp_proxy.store.pool import Connection


class Domains:
    """A part of `Store`, which brings the connections."""

    _settings: Settings
    _clock: Clock

    def _connection(self, doing: str) -> AbstractAsyncContextManager[Connection]:
        raise NotImplementedError

    async def add_domain(self, tenant_id: UUID, name: str, keys: Sequence[DomainKey]) -> Domain:
        """With its first keys. Raises AlreadyExists when the tenant has it."""
        async with self._connection(f"adding domain {name}") as connection, connection.transaction():
            row = await connection.fetchrow(QUERIES["add_domain"], new_id(self._clock.now()), tenant_id, name)
            domain = _domain(present(row, name))
            await _add_keys(connection, domain.id, keys)
        return replace(domain, keys=tuple(keys))

    async def list_domains(self, tenant_id: UUID | None = None, name: str | None = None) -> list[Domain]:
        """Of one tenant or of all, of that name or of any, by name; with all their keys."""
        async with self._connection("listing domains") as connection:
            rows = await connection.fetch(QUERIES["list_domains"], tenant_id, name)
            keys = await connection.fetch(QUERIES["list_domain_keys"], [row["id"] for row in rows])
        by_domain: dict[UUID, list[DomainKey]] = {}
        for key in keys:
            by_domain.setdefault(key["domain_id"], []).append(_key(key))
        return [replace(domain, keys=tuple(by_domain.get(domain.id, ()))) for domain in map(_domain, rows)]

    async def rotate_domain(self, domain_id: UUID, keys: Sequence[DomainKey], forget_before: datetime) -> None:
        """Add keys, let the others end when these begin, and forget those that ended before `forget_before`."""
        async with self._connection("rotating the keys of a domain") as connection, connection.transaction():
            await connection.execute(QUERIES["end_domain_keys"], domain_id, keys[0].signs_from)
            await connection.execute(QUERIES["forget_domain_keys"], domain_id, forget_before)
            await _add_keys(connection, domain_id, keys)

    async def remove_domain(self, domain_id: UUID) -> None:
        """With its keys. Raises NotFound."""
        async with self._connection("removing a domain") as connection:
            present(await connection.fetchrow(QUERIES["remove_domain"], domain_id), f"domain {domain_id}")

    async def reseal_domain_key(self, key: DomainKey, sealed: Sealed) -> bool:
        """Put another seal in place of the one that `key` has; False: it has another one by now, or is gone."""
        async with self._connection("sealing a key anew") as connection:
            old = key.sealed
            row = await connection.fetchrow(QUERIES["reseal_domain_key"], key.id, old.data, sealed.key_id, sealed.data)
        return row is not None

    async def listen_domains(self, callback: Callable[[], None]) -> None:
        """Call back when domains or their keys may have changed. Runs until cancelled; reconnects by itself."""
        await listen(self._settings, DOMAINS_CHANNEL, callback)


async def _add_keys(connection: Connection, domain_id: UUID, keys: Sequence[DomainKey]) -> None:
    for key in keys:
        values: tuple[Any, ...] = (key.selector, key.algorithm, key.public_key, key.sealed.data, key.sealed.key_id)
        await connection.execute(QUERIES["add_domain_key"], key.id, domain_id, *values, key.created_at, key.signs_from)


def _domain(row: asyncpg.Record) -> Domain:
    return Domain(row["id"], row["tenant_id"], row["name"], row["created_at"])


def _key(row: asyncpg.Record) -> DomainKey:
    return DomainKey(
        row["id"],
        row["selector"],
        row["algorithm"],
        row["public_key"],
        Sealed(row["secret_key_id"], row["sealed_key"]),
        row["created_at"],
        row["signs_from"],
        row["signs_until"],
    )
