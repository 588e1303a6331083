"""The store in memory: same interface and same rules as `Store`, for the unit tests of other rooms.

The integration suite of the store runs on both, which is what keeps this one honest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from smtp_proxy.clock import Clock
from smtp_proxy.errors import AlreadyExists, NotFound
from smtp_proxy.model.attempt import Attempt, Outcome, Postponed, RecipientResult, Sending
from smtp_proxy.model.dsn import Notify, optional
from smtp_proxy.model.envelope import DeliveryState, Job, Recipient
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.limits import Placement
from smtp_proxy.model.message import AttemptRecord, Message, MessageSummary
from smtp_proxy.model.outcome import Consequences
from smtp_proxy.model.policy import OnUnknown
from smtp_proxy.model.submission import SubmissionKey
from smtp_proxy.store.accept import CoreEnvelope, Encoder
from smtp_proxy.store.claim import split_by_size
from smtp_proxy.store.consequences import Place, concerned, late_places, numbers_to_tell
from smtp_proxy.store.decode import decode
from smtp_proxy.store.memory_api_keys import MemoryApiKeys
from smtp_proxy.store.memory_certificates import MemoryCertificates
from smtp_proxy.store.memory_changes import MemoryChanges
from smtp_proxy.store.memory_leader import MemoryLeaders
from smtp_proxy.store.memory_outcomes import MemoryOutcomes
from smtp_proxy.store.memory_retention import MemoryRetention
from smtp_proxy.store.memory_rows import Row, delivery_of, envelope_of, take_out
from smtp_proxy.store.once import firsts
from smtp_proxy.store.record import STATE_AFTER

_OPEN = (DeliveryState.QUEUED, DeliveryState.SENDING)


class MemoryStore(MemoryChanges, MemoryRetention, MemoryLeaders, MemoryOutcomes, MemoryCertificates, MemoryApiKeys):
    """A fake Store. `down = True` makes every call raise StoreUnavailable."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock)
        MemoryOutcomes.__init__(self)
        MemoryCertificates.__init__(self)
        MemoryApiKeys.__init__(self)
        self._submission_keys: dict[tuple[UUID, bytes], tuple[bytes, datetime]] = {}

    # -- life

    async def close(self, timeout_seconds: float = 5.0) -> None:
        """Nothing to close."""

    async def probe_commit(self) -> None:
        self._reachable()

    # -- mail in

    async def accept(
        self,
        batch: Sequence[CoreEnvelope],
        *,
        sweep_after_seconds: float,
        placements: Mapping[bytes, Placement] | None = None,
    ) -> None:
        self._reachable()
        now = self._clock.now()
        sweep_at = now + timedelta(seconds=sweep_after_seconds)
        envelopes = [envelope_of(row) for row in batch]
        if any(envelope.id in self._envelopes for envelope in envelopes):
            raise AlreadyExists
        for envelope, row in zip(envelopes, batch, strict=True):
            self._envelopes[envelope.id] = envelope
            asked = row[12][2] if row[12] else [(None, None)] * len(row[4])
            self._rows[envelope.id] = [
                Row(
                    envelope.id,
                    n,
                    address,
                    now,
                    sweep_at,
                    notify=optional(Notify, notify),
                    orcpt=orcpt,
                    lane=Lane(row[13]),
                )
                for n, (address, (notify, orcpt)) in enumerate(zip(row[4], asked, strict=True))
            ]
            if placements and row[0] in placements:
                self._place(self._rows[envelope.id], placements[row[0]])

    async def accept_encoded(self, encoder: Encoder, messages: int, *, sweep_after_seconds: float) -> None:
        await self.accept(decode(b"".join(encoder(0)))[:messages], sweep_after_seconds=sweep_after_seconds)

    async def accept_once(
        self,
        batch: Sequence[CoreEnvelope],
        keys: Mapping[bytes, SubmissionKey],
        *,
        sweep_after_seconds: float,
        placements: Mapping[bytes, Placement] | None = None,
    ) -> dict[bytes, bytes]:
        self._reachable()
        now = self._clock.now()
        known: dict[tuple[UUID, bytes], bytes] = {}
        for key, envelope_id in firsts(batch, keys):
            pair = (key.credential_id, key.digest)
            if pair not in self._submission_keys or self._submission_keys[pair][1] <= now:
                self._submission_keys[pair] = (envelope_id, now + timedelta(seconds=key.seconds))
            known[pair] = self._submission_keys[pair][0]
        named = {
            row[0]: known[keys[row[0]].credential_id, keys[row[0]].digest] if row[0] in keys else row[0]
            for row in batch
        }
        fresh = [row for row in batch if named[row[0]] == row[0]]
        await self.accept(fresh, sweep_after_seconds=sweep_after_seconds, placements=placements)
        return named

    async def idempotent_tenants(self) -> dict[UUID, int]:
        self._reachable()
        wanted = {name: policy.idempotency_seconds for name, policy in self._policies.items()}
        return {self._tenants[name].id: seconds for name, seconds in wanted.items() if seconds is not None}

    async def forget_submission_keys(self, limit: int = 10_000) -> int:
        self._reachable()
        now = self._clock.now()
        expired = [pair for pair, (_, until) in self._submission_keys.items() if until <= now][:limit]
        for pair in expired:
            del self._submission_keys[pair]
        return len(expired)

    async def ensure_partitions(self, now: datetime, days_ahead: int) -> list[str]:
        self._reachable()
        return []

    # -- mail out

    async def claim(
        self, envelope_ids: Sequence[UUID], worker_id: UUID, lease_seconds: float, *, max_bytes: int = 64 * 1024 * 1024
    ) -> list[Job]:
        self._reachable()
        now = self._clock.now()
        due = {
            i: rows
            for i in set(envelope_ids)
            if (
                rows := [
                    r for r in self._rows.get(i, []) if r.state is DeliveryState.QUEUED and r.next_attempt_at <= now
                ]
            )
        }
        kept, excess = split_by_size({i: len(self._envelopes[i].body) for i in due}, max_bytes)
        for row in (row for i in excess for row in due[i]):
            row.sweep_at = now
        for row in (row for i in kept for row in due[i]):
            row.state, row.claimed_by, row.waits_for = DeliveryState.SENDING, worker_id, None
            row.sweep_at = now + timedelta(seconds=lease_seconds)
        return [
            Job(
                self._envelopes[i],
                tuple(self._recipient(r) for r in due[i]),
                due[i][0].lane,
            )
            for i in kept
        ]

    async def renew(self, envelope_ids: Sequence[UUID], worker_id: UUID, lease_seconds: float) -> dict[UUID, bool]:
        self._reachable()
        held = [row for row in self._held(worker_id) if row.envelope_id in envelope_ids]
        for row in held:
            row.sweep_at = self._clock.now() + timedelta(seconds=lease_seconds)
        return {row.envelope_id: True for row in held}

    async def record(self, attempts: Sequence[Attempt], then: Consequences | None = None) -> int:
        self._reachable()
        count = sum(self._record_one(attempt) for attempt in attempts)
        if then:
            self._bring_about(self._recorded(attempts, then), then)
        return count

    async def postpone(self, postponed: Sequence[Postponed], then: Consequences | None = None) -> int:
        self._reachable()
        places = set()
        for one in postponed:
            row = self._claimed(one.envelope_id, one.recipient_number, one.worker_id)
            if row is not None:
                row.state, row.claimed_by = DeliveryState.QUEUED, None
                row.next_attempt_at = row.sweep_at = one.next_attempt_at
                row.waits_for = one.why or None
                places.add((row.envelope_id, row.number))
        if then:
            self._bring_about(places, then)
        return len(places)

    async def sending(self, sendings: Sequence[Sending]) -> set[tuple[UUID, int]]:
        self._reachable()
        written = set()
        for sending in sendings:
            row = self._claimed(sending.envelope_id, sending.recipient_number, sending.worker_id)
            if row is None or row.attempt_count != sending.attempt_number - 1 or row.sweep_at <= self._clock.now():
                continue
            take_out(row, sending.attempt_number)
            row.attempts.append(
                AttemptRecord(
                    sending.attempt_number, Outcome.UNKNOWN, 0, "", "sent, and no answer was recorded", sending.remote,
                    sending.worker_id, sending.started_at, None,
                )
            )  # fmt: skip
            written.add((row.envelope_id, row.number))
        return written

    async def release(self, worker_id: UUID) -> dict[UUID, Lane]:
        self._reachable()
        held = self._held(worker_id)
        for row in held:
            self._put_back(row, self._clock.now())
        return {row.envelope_id: row.lane for row in held}

    async def sweep(self, limit: int, sweep_after_seconds: float, lane: Lane = Lane.TRANSACTIONAL) -> list[UUID]:
        self._reachable()
        now = self._clock.now()
        rows = (r for r in self._all_rows() if r.lane is lane and r.state in _OPEN and r.sweep_at <= now)
        due = sorted(rows, key=lambda r: r.sweep_at)
        last = limit // 4
        first = [*due[: limit - last], *due[max(0, len(due) - last) :]]
        swept = dict.fromkeys(row.envelope_id for row in first)
        for row in due:
            if row.envelope_id in swept:
                self._put_back(row, now + timedelta(seconds=sweep_after_seconds))
        return list(swept)

    async def depth(self) -> int:
        self._reachable()
        now = self._clock.now()
        return sum(r.state is DeliveryState.QUEUED and r.next_attempt_at <= now for r in self._all_rows())

    async def backlog_age_seconds(self) -> float:
        self._reachable()
        now = self._clock.now()
        due = [r.next_attempt_at for r in self._all_rows() if r.state is DeliveryState.QUEUED]
        return max(0.0, (now - min(due, default=now)).total_seconds())

    # -- looking up

    async def list_messages(
        self,
        *,
        tenant_id: UUID | None = None,
        state: DeliveryState | None = None,
        limit: int = 50,
        before: UUID | None = None,
    ) -> list[MessageSummary]:
        self._reachable()
        found = [
            self._summary(i)
            for i in sorted(self._envelopes, reverse=True)
            if (before is None or i < before) and (tenant_id is None or self._envelopes[i].tenant_id == tenant_id)
        ]
        return [s for s in found if state is None or state in s.states][:limit]

    async def page_of_messages(
        self,
        *,
        tenant_id: UUID | None,
        state: DeliveryState | None,
        limit: int,
        before: UUID | None,
        patience_seconds: float,
    ) -> tuple[list[MessageSummary], UUID | None]:
        del patience_seconds  # it is quick
        found = await self.list_messages(tenant_id=tenant_id, state=state, limit=limit + 1, before=before)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def message(self, envelope_id: UUID) -> Message:
        self._reachable()
        if envelope_id not in self._envelopes:
            raise NotFound
        envelope, rows = self._envelopes[envelope_id], self._rows[envelope_id]
        return Message(self._summary(envelope_id), tuple(map(delivery_of, rows)), envelope.ret, envelope.envid)

    # -- below

    def _recipient(self, row: Row) -> Recipient:
        tenant_id = self._envelopes[row.envelope_id].tenant_id
        return Recipient(
            row.number, row.recipient, row.attempt_count + 1, row.notify, row.orcpt,
            self._suppressed(tenant_id, row.recipient), row.replayed_at, row.replayed_attempts, row.delay_reported,
            row.route,
        )  # fmt: skip

    def _recorded(self, attempts: Sequence[Attempt], then: Consequences) -> set[Place]:
        return {
            (a.envelope_id, a.result.number)
            for a in concerned(attempts, then)
            if any(
                (past.number, past.worker_id, past.finished_at) == (a.number, a.worker_id, a.finished_at)
                for past in self._rows[a.envelope_id][a.result.number].attempts
            )
        }

    def _bring_about(self, recorded: set[Place], then: Consequences) -> None:
        late = {p for p in late_places(then.reports, recorded) if not self._rows[p[0]][p[1]].delay_reported}
        for envelope_id, number in late:
            self._rows[envelope_id][number].delay_reported = True
        for due in then.reports:
            envelope = due.render(numbers_to_tell(due, recorded, late))
            if envelope is not None and envelope.id not in self._envelopes:
                now = self._clock.now()
                self._envelopes[envelope.id] = envelope
                self._rows[envelope.id] = [
                    Row(envelope.id, 0, due.recipient, now, now, notify=Notify.NEVER, lane=due.lane)
                ]
        for number, suppression in then.suppressions:
            if (suppression.envelope_id, number) in recorded:
                self._suppress(suppression)

    def _place(self, rows: Sequence[Row], placement: Placement) -> None:
        due = self._clock.now() + timedelta(seconds=placement.delay_seconds)
        for row in rows:
            row.state = DeliveryState.HELD if placement.held else DeliveryState.QUEUED
            row.next_attempt_at, row.sweep_at = due, max(row.sweep_at, due)

    def _held(self, worker_id: UUID) -> list[Row]:
        return [r for r in self._all_rows() if r.state is DeliveryState.SENDING and r.claimed_by == worker_id]

    def _claimed(self, envelope_id: UUID, number: int, worker_id: UUID) -> Row | None:
        for row in self._rows.get(envelope_id, []):
            if row.number == number and row.state is DeliveryState.SENDING and row.claimed_by == worker_id:
                return row
        return None

    def _put_back(self, row: Row, sweep_at: datetime) -> None:
        """To the queue; what may have been sent counts as an attempt, and is held where its tenant wants that."""
        was_taken = row.state is DeliveryState.SENDING
        row.state, row.claimed_by, row.sweep_at = DeliveryState.QUEUED, None, sweep_at
        if was_taken and row.attempts and row.attempts[-1].finished_at is None:
            row.attempts[-1] = replace(row.attempts[-1], finished_at=self._clock.now())
            row.attempt_count += 1
            row.state = self._state_after_unknown(row.envelope_id)
            self._tell_unknown(row)

    def _tell_unknown(self, row: Row) -> None:
        """As the function of that name in migration 0021."""
        last, envelope = row.attempts[-1], self._envelopes[row.envelope_id]
        result = RecipientResult(
            row.number, last.outcome, last.reply_code, last.enhanced_code, last.reply_text, last.remote
        )
        ended_at = last.finished_at or self._clock.now()
        attempt = Attempt(
            envelope.id, last.number, last.worker_id, last.started_at, ended_at, result, row.next_attempt_at
        )
        self._tell(attempt, envelope, row.recipient, held=row.state is DeliveryState.HELD)

    def _state_after_unknown(self, envelope_id: UUID) -> DeliveryState:
        tenant_id = self._envelopes[envelope_id].tenant_id
        policies = [self._policies.get(name) for name, tenant in self._tenants.items() if tenant.id == tenant_id]
        holds = any(policy is not None and policy.on_unknown is OnUnknown.HOLD for policy in policies)
        return DeliveryState.HELD if holds else DeliveryState.QUEUED

    def _record_one(self, attempt: Attempt) -> bool:
        result = attempt.result
        row = self._claimed(attempt.envelope_id, result.number, attempt.worker_id)
        if row is None or row.attempt_count != attempt.number - 1:
            return False
        take_out(row, attempt.number)
        row.state, row.claimed_by, row.attempt_count = STATE_AFTER[result.outcome], None, attempt.number
        if result.outcome is Outcome.UNKNOWN:
            row.state = self._state_after_unknown(row.envelope_id)
        row.next_attempt_at = attempt.next_attempt_at or row.next_attempt_at
        row.sweep_at = attempt.next_attempt_at or attempt.finished_at
        is_open = row.state in (DeliveryState.QUEUED, DeliveryState.HELD)
        row.finished_at = None if is_open else attempt.finished_at
        row.attempts.append(
            AttemptRecord(
                attempt.number,
                result.outcome,
                result.reply_code,
                result.enhanced_code,
                result.reply_text,
                result.remote,
                attempt.worker_id,
                attempt.started_at,
                attempt.finished_at,
                result.kind,
            )
        )
        self._tell(attempt, self._envelopes[row.envelope_id], row.recipient, held=row.state is DeliveryState.HELD)
        self._forget_settled(row.envelope_id)
        return True

    def _summary(self, envelope_id: UUID) -> MessageSummary:
        e, rows = self._envelopes[envelope_id], self._rows[envelope_id]
        return MessageSummary(
            e.id, e.tenant_id, e.credential_id, e.reverse_path, len(e.body), e.received_at, e.helo,
            e.client_address, e.tls, tuple(row.recipient for row in rows), tuple(row.state for row in rows),
            e.tls_suite, min((row.lane for row in rows), default=Lane.TRANSACTIONAL),
        )  # fmt: skip
