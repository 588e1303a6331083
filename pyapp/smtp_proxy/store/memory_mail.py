"""What the parts of the store in memory share: accepted mail, and what is settled of it."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from smtp_proxy.clock import Clock
from smtp_proxy.model.envelope import Envelope
from smtp_proxy.model.retention import SETTLED, Retention
from smtp_proxy.store.memory_rows import Row
from smtp_proxy.store.memory_webhooks import MemoryWebhooks


class MemoryMail(MemoryWebhooks):
    """A part of MemoryStore."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self._envelopes: dict[UUID, Envelope] = {}
        self._rows: dict[UUID, list[Row]] = {}
        self._retentions: dict[UUID, Retention] = {}

    async def ping(self) -> None:
        self._reachable()

    def _all_rows(self) -> list[Row]:
        return [row for rows in self._rows.values() for row in rows]

    def _of_tenant(self, tenant_id: UUID) -> list[UUID]:
        self._reachable()
        return sorted(i for i, envelope in self._envelopes.items() if envelope.tenant_id == tenant_id)

    def _is_settled(self, envelope_id: UUID) -> bool:
        return all(row.state in SETTLED for row in self._rows[envelope_id])

    def _forget_settled(self, envelope_id: UUID) -> None:
        """As a tenant that wants no content kept has it."""
        retention = self._retentions.get(self._envelopes[envelope_id].tenant_id)
        if retention is not None and not retention.keep_bodies and self._is_settled(envelope_id):
            self._envelopes[envelope_id] = replace(self._envelopes[envelope_id], body=b"")
