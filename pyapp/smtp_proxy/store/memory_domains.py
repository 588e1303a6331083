"""Domains of the store in memory, with the same rules as in `Store`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from smtp_proxy.clock import Clock
from smtp_proxy.errors import AlreadyExists, NotFound
from smtp_proxy.model.domain import Domain, DomainKey
from smtp_proxy.sealing import Sealed
from smtp_proxy.store.ids import new_id
from smtp_proxy.store.memory_accounts import MemoryAccounts


class MemoryDomains(MemoryAccounts):
    """A part of MemoryStore."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self._kept_domains: dict[UUID, Domain] = {}
        self._domain_callbacks: list[Callable[[], None]] = []

    def _domains(self) -> dict[UUID, Domain]:
        self._reachable()
        return self._kept_domains

    async def add_domain(self, tenant_id: UUID, name: str, keys: Sequence[DomainKey]) -> Domain:
        if any((d.tenant_id, d.name) == (tenant_id, name) for d in self._domains().values()):
            raise AlreadyExists
        domain = Domain(new_id(self._clock.now()), tenant_id, name, self._clock.now(), tuple(keys))
        return self._put_domain(domain)

    async def list_domains(self, tenant_id: UUID | None = None, name: str | None = None) -> list[Domain]:
        found = sorted(self._domains().values(), key=lambda d: (d.name, d.tenant_id))
        return [d for d in found if tenant_id in (None, d.tenant_id) and name in (None, d.name)]

    async def rotate_domain(self, domain_id: UUID, keys: Sequence[DomainKey], forget_before: datetime) -> None:
        domain, begins = self._domains()[domain_id], keys[0].signs_from
        ended = [k if k.signs_until and k.signs_until < begins else replace(k, signs_until=begins) for k in domain.keys]
        kept = [k for k in ended if k.signs_until is None or k.signs_until >= forget_before]
        self._put_domain(replace(domain, keys=(*kept, *keys)))

    async def remove_domain(self, domain_id: UUID) -> None:
        if self._domains().pop(domain_id, None) is None:
            raise NotFound
        self._notify_domains()

    async def reseal_domain_key(self, key: DomainKey, sealed: Sealed) -> bool:
        for domain in self._domains().values():
            if key in domain.keys:
                resealed = replace(key, sealed=sealed)
                self._put_domain(replace(domain, keys=tuple(resealed if k == key else k for k in domain.keys)))
                return True
        return False

    async def listen_domains(self, callback: Callable[[], None]) -> None:
        self._domain_callbacks.append(callback)
        try:
            callback()
            await asyncio.Event().wait()
        finally:
            self._domain_callbacks.remove(callback)

    def _put_domain(self, domain: Domain) -> Domain:
        self._domains()[domain.id] = domain
        self._notify_domains()
        return domain

    def _notify_domains(self) -> None:
        for callback in self._domain_callbacks:
            callback()
