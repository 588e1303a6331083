"""What operators do to mail, of the store in memory: held, released, cancelled, replayed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from uuid import UUID

from smtp_proxy.model.attempt import Kind
from smtp_proxy.model.change import Change, Reroute
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.model.limits import Held
from smtp_proxy.model.mailbox import domain_key, mailbox_key
from smtp_proxy.model.outcome import DeadLetter
from smtp_proxy.model.webhook import Event
from smtp_proxy.store.held import EVENT_OF
from smtp_proxy.store.memory_mail import MemoryMail
from smtp_proxy.store.memory_rows import Row, dead_letter_of


class MemoryChanges(MemoryMail):
    """A part of MemoryStore."""

    async def release_held(self, envelope_ids: Sequence[UUID]) -> list[UUID]:
        self._reachable()
        return self._release([row for row in self._all_rows() if row.envelope_id in envelope_ids])

    async def release_all_held(self, tenant_id: UUID | None = None, *, batch: int = 1000) -> AsyncIterator[int]:
        self._reachable()
        rows = [
            row
            for row in self._all_rows()
            if row.state is DeliveryState.HELD and tenant_id in (None, self._envelopes[row.envelope_id].tenant_id)
        ]
        rows.sort(key=lambda row: (row.envelope_id, row.number))
        for start in range(0, len(rows), batch):
            yield len(self._release(rows[start : start + batch]))
        yield 0

    async def change(self, change: Change, envelope_ids: Sequence[UUID]) -> list[UUID]:
        self._reachable()
        rows = [row for row in self._all_rows() if row.envelope_id in envelope_ids]
        if change is Change.RELEASE:
            return self._release(rows)
        stands = (DeliveryState.QUEUED,) if change is Change.HOLD else (DeliveryState.QUEUED, DeliveryState.HELD)
        found = [row for row in rows if row.state in stands]
        for row in found:
            row.state = DeliveryState.HELD if change is Change.HOLD else DeliveryState.CANCELLED
            row.finished_at = self._clock.now() if change is Change.CANCEL else None
            self._tell_change(EVENT_OF[change], self._envelopes[row.envelope_id], row.number, row.recipient)
        for envelope_id in {row.envelope_id for row in found}:
            self._forget_settled(envelope_id)
        return list(dict.fromkeys(row.envelope_id for row in found))

    async def change_all(self, change: Change, tenant_id: UUID, *, batch: int = 1000) -> AsyncIterator[int]:
        ids = sorted(i for i, envelope in self._envelopes.items() if envelope.tenant_id == tenant_id)
        for start in range(0, len(ids), batch):
            yield len(await self.change(change, ids[start : start + batch]))
        yield 0

    async def in_hand(self, *, tenant_id: UUID | None = None, envelope_ids: Sequence[UUID] | None = None) -> int:
        self._reachable()
        found = {row.envelope_id for row in self._all_rows() if row.state is DeliveryState.SENDING}
        if envelope_ids is not None:
            found &= set(envelope_ids)
        return sum(tenant_id in (None, self._envelopes[i].tenant_id) for i in found)

    async def reroute(self, reroute: Reroute, envelope_ids: Sequence[UUID]) -> list[UUID]:
        self._reachable()
        domains = set(map(domain_key, reroute.domains))
        found = [
            row
            for row in self._all_rows()
            if row.envelope_id in envelope_ids
            and row.state in reroute.states
            and (row.attempt_count or not reroute.deferred_alone)
            and (not domains or domain_key(row.recipient) in domains)
        ]
        for row in found:
            row.route = reroute.route
            is_queued = row.state is DeliveryState.QUEUED
            if is_queued and row.attempt_count:
                row.next_attempt_at = row.sweep_at = self._clock.now()
            due_at = row.next_attempt_at if is_queued else None
            envelope = self._envelopes[row.envelope_id]
            self._tell_change(Event.REROUTED, envelope, row.number, row.recipient, due_at=due_at)
        return list(dict.fromkeys(row.envelope_id for row in found))

    async def reroute_all(self, reroute: Reroute, tenant_id: UUID, *, batch: int = 1000) -> AsyncIterator[int]:
        ids = sorted(i for i, envelope in self._envelopes.items() if envelope.tenant_id == tenant_id)
        for start in range(0, len(ids), batch):
            yield len(await self.reroute(reroute, ids[start : start + batch]))
        yield 0

    async def held_by_tenant(self) -> dict[UUID, Held]:
        self._reachable()
        found: dict[UUID, Held] = {}
        for envelope_id, rows in self._rows.items():
            if any(row.state is DeliveryState.HELD for row in rows):
                envelope = self._envelopes[envelope_id]
                before = found.get(envelope.tenant_id, Held())
                found[envelope.tenant_id] = Held(before.messages + 1, before.size_bytes + len(envelope.body))
        return found

    async def dead_letters(
        self,
        *,
        tenant_id: UUID | None = None,
        kind: Kind | None = None,
        before: UUID | None = None,
        limit: int = 50,
    ) -> list[DeadLetter]:
        pages = self.dead_letter_pages(tenant_id=tenant_id, kind=kind, before=before)
        return [letter async for page in pages for letter in page][:limit]

    async def dead_letter_pages(
        self,
        *,
        tenant_id: UUID | None = None,
        kind: Kind | None = None,
        before: UUID | None = None,
        page: int = 5000,
    ) -> AsyncGenerator[list[DeadLetter]]:
        self._reachable()
        for i in sorted(self._rows, reverse=True):
            dead = [row for row in self._rows[i] if row.state is DeliveryState.REFUSED]
            if dead and (before is None or i < before):
                found = [dead_letter_of(row, self._envelopes[i]) for row in dead]
                yield [d for d in found if tenant_id in (None, d.tenant_id) and kind in (None, d.kind)]

    async def replay(self, envelope_ids: Sequence[UUID], recipients: Sequence[str] = ()) -> list[UUID]:
        self._reachable()
        only = {mailbox_key(address) for address in recipients}
        now = self._clock.now()
        rows = [
            row
            for i in envelope_ids
            for row in self._rows.get(i, [])
            if row.state is DeliveryState.REFUSED and (not only or mailbox_key(row.recipient) in only)
        ]
        for row in rows:
            row.state, row.next_attempt_at, row.sweep_at, row.finished_at = DeliveryState.QUEUED, now, now, None
            row.replayed_at, row.replayed_attempts, row.delay_reported = now, row.attempt_count, False
            self._tell_change(Event.REPLAYED, self._envelopes[row.envelope_id], row.number, row.recipient, due_at=now)
        return list(dict.fromkeys(row.envelope_id for row in rows))

    def _release(self, rows: Sequence[Row]) -> list[UUID]:
        found = [row for row in rows if row.state is DeliveryState.HELD]
        for row in found:
            now = row.next_attempt_at = row.sweep_at = self._clock.now()
            row.state = DeliveryState.QUEUED
            row.replayed_at, row.replayed_attempts, row.delay_reported = now, row.attempt_count, False
            self._tell_change(Event.RELEASED, self._envelopes[row.envelope_id], row.number, row.recipient, due_at=now)
        return list(dict.fromkeys(row.envelope_id for row in found))
