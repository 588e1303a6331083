"""What is no longer kept, of the store in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from smtp_proxy.config import Settings
from smtp_proxy.model.retention import Forgotten, Retention
from smtp_proxy.store.ids import first_id
from smtp_proxy.store.memory_mail import MemoryMail

_GIVE_UP = timedelta(seconds=Settings.model_fields["webhook_give_up_seconds"].default)


class MemoryRetention(MemoryMail):
    """A part of MemoryStore."""

    async def retentions(self) -> list[Retention]:
        self._reachable()
        return [self._retentions.get(t.id, Retention(t.id)) for t in await self.list_tenants()]

    async def tenant_retention(self, name: str) -> Retention:
        tenant_id = (await self.tenant_by_name(name)).id
        return self._retentions.get(tenant_id, Retention(tenant_id))

    async def set_retention(self, retention: Retention) -> None:
        self._reachable()
        self._retentions[retention.tenant_id] = retention

    async def expire_messages(
        self, tenant_id: UUID, before: datetime, *, after: UUID | None = None, limit: int = 500
    ) -> tuple[int, UUID | None]:
        low = after or UUID(int=0)
        ids = [i for i in self._of_tenant(tenant_id) if low < i < first_id(before)][:limit]
        told_since = self._clock.now() - _GIVE_UP
        gone = [i for i in ids if self._is_settled(i) and not self._has_events(i, told_since)]
        for envelope_id in gone:
            del self._envelopes[envelope_id], self._rows[envelope_id]
        self._events = {key: kept for key, kept in self._events.items() if key[0] not in gone}
        return len(gone), ids[-1] if len(ids) == limit else None

    async def forget_contents(
        self, tenant_id: UUID, since: datetime, *, after: UUID | None = None, limit: int = 500
    ) -> Forgotten:
        low = max(first_id(since), after or UUID(int=0))
        ids = [i for i in self._of_tenant(tenant_id) if i > low][:limit]
        return replace(await self.forget_contents_of(ids), after=ids[-1] if len(ids) == limit else None)

    async def forget_contents_of(self, envelope_ids: Sequence[UUID]) -> Forgotten:
        self._reachable()
        there = [i for i in envelope_ids if i in self._envelopes and self._envelopes[i].body]
        gone = [i for i in there if self._is_settled(i)]
        for envelope_id in gone:
            self._envelopes[envelope_id] = replace(self._envelopes[envelope_id], body=b"")
        return Forgotten(len(gone), tuple(sorted(set(there).difference(gone))))

    async def drop_days(self, before: datetime) -> list[str]:
        self._reachable()
        return []
