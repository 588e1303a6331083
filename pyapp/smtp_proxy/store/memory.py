"""The store in memory: same interface and same rules as `Store`, for the unit tests of other rooms.

The integration suite of the store runs on both, which is what keeps this one honest.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Self
from uuid import UUID

from smtp_proxy.clock import Clock
from smtp_proxy.errors import AlreadyExists, NotFound
from smtp_proxy.model.attempt import Attempt, Kind, Outcome, Postponed, RecipientResult, Sending
from smtp_proxy.model.change import Change
from smtp_proxy.model.dsn import Notify, Ret, optional
from smtp_proxy.model.envelope import BodyType, DeliveryState, Envelope, Job, Recipient
from smtp_proxy.model.limits import Held, Placement
from smtp_proxy.model.message import AttemptRecord, Delivery, Message, MessageSummary
from smtp_proxy.model.outcome import Consequences, DeadLetter
from smtp_proxy.model.policy import OnUnknown
from smtp_proxy.model.retention import SETTLED, Retention
from smtp_proxy.model.submission import SubmissionKey
from smtp_proxy.model.tls import suite_name
from smtp_proxy.model.webhook import Event
from smtp_proxy.store.accept import CoreEnvelope, Encoder, tls_suite
from smtp_proxy.store.claim import split_by_size
from smtp_proxy.store.consequences import Place, concerned, late_places, numbers_to_tell
from smtp_proxy.store.decode import decode
from smtp_proxy.store.held import EVENT_OF
from smtp_proxy.store.ids import first_id
from smtp_proxy.store.memory_outcomes import MemoryOutcomes
from smtp_proxy.store.memory_webhooks import MemoryWebhooks
from smtp_proxy.store.once import firsts
from smtp_proxy.store.record import STATE_AFTER

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OPEN = (DeliveryState.QUEUED, DeliveryState.SENDING)


@dataclass(slots=True)
class _Row:
    """A delivery, with what the model does not show."""

    envelope_id: UUID
    number: int
    recipient: str
    next_attempt_at: datetime
    sweep_at: datetime
    state: DeliveryState = DeliveryState.QUEUED
    attempt_count: int = 0
    claimed_by: UUID | None = None
    finished_at: datetime | None = None
    notify: Notify | None = None
    orcpt: str | None = None
    attempts: list[AttemptRecord] = field(default_factory=list)
    delay_reported: bool = False
    replayed_at: datetime | None = None
    replayed_attempts: int = 0


class MemoryStore(MemoryWebhooks, MemoryOutcomes):
    """A fake Store. `down = True` makes every call raise StoreUnavailable."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock)
        MemoryOutcomes.__init__(self)
        self.leaders: dict[str, MemoryLeadership] = {}
        self._envelopes: dict[UUID, Envelope] = {}
        self._rows: dict[UUID, list[_Row]] = {}
        self._retentions: dict[UUID, Retention] = {}
        self._submission_keys: dict[tuple[UUID, bytes], tuple[bytes, datetime]] = {}

    # -- life

    async def close(self, timeout_seconds: float = 5.0) -> None:
        """Nothing to close."""

    async def ping(self) -> None:
        self._reachable()

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
        envelopes = [_envelope(row) for row in batch]
        if any(envelope.id in self._envelopes for envelope in envelopes):
            raise AlreadyExists
        for envelope, row in zip(envelopes, batch, strict=True):
            self._envelopes[envelope.id] = envelope
            asked = row[12][2] if row[12] else [(None, None)] * len(row[4])
            self._rows[envelope.id] = [
                _Row(envelope.id, n, address, now, sweep_at, notify=optional(Notify, notify), orcpt=orcpt)
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
            row.state, row.claimed_by = DeliveryState.SENDING, worker_id
            row.sweep_at = now + timedelta(seconds=lease_seconds)
        return [
            Job(
                self._envelopes[i],
                tuple(self._recipient(r) for r in due[i]),
            )
            for i in kept
        ]

    async def renew(self, worker_id: UUID, lease_seconds: float) -> int:
        self._reachable()
        held = self._held(worker_id)
        for row in held:
            row.sweep_at = self._clock.now() + timedelta(seconds=lease_seconds)
        return len(held)

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
            _take_out(row, sending.attempt_number)
            row.attempts.append(
                AttemptRecord(
                    sending.attempt_number, Outcome.UNKNOWN, 0, "", "sent, and no answer was recorded", sending.remote,
                    sending.worker_id, sending.started_at, None,
                )
            )  # fmt: skip
            written.add((row.envelope_id, row.number))
        return written

    async def release(self, worker_id: UUID) -> list[UUID]:
        self._reachable()
        held = self._held(worker_id)
        for row in held:
            self._put_back(row, self._clock.now())
        return list(dict.fromkeys(row.envelope_id for row in held))

    async def sweep(self, limit: int, sweep_after_seconds: float) -> list[UUID]:
        self._reachable()
        now = self._clock.now()
        due = sorted((r for r in self._all_rows() if r.state in _OPEN and r.sweep_at <= now), key=lambda r: r.sweep_at)
        for row in due[:limit]:
            self._put_back(row, now + timedelta(seconds=sweep_after_seconds))
        return list(dict.fromkeys(row.envelope_id for row in due[:limit]))

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

    async def held_by_tenant(self) -> dict[UUID, Held]:
        self._reachable()
        found: dict[UUID, Held] = {}
        for envelope_id, rows in self._rows.items():
            if any(row.state is DeliveryState.HELD for row in rows):
                envelope = self._envelopes[envelope_id]
                before = found.get(envelope.tenant_id, Held())
                found[envelope.tenant_id] = Held(before.messages + 1, before.size_bytes + len(envelope.body))
        return found

    async def depth(self) -> int:
        self._reachable()
        now = self._clock.now()
        return sum(r.state is DeliveryState.QUEUED and r.next_attempt_at <= now for r in self._all_rows())

    async def backlog_age_seconds(self) -> float:
        self._reachable()
        now = self._clock.now()
        due = [r.next_attempt_at for r in self._all_rows() if r.state is DeliveryState.QUEUED]
        return max(0.0, (now - min(due, default=now)).total_seconds())

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
                found = [_dead_letter(row, self._envelopes[i]) for row in dead]
                yield [d for d in found if tenant_id in (None, d.tenant_id) and kind in (None, d.kind)]

    async def replay(self, envelope_ids: Sequence[UUID], recipients: Sequence[str] = ()) -> list[UUID]:
        self._reachable()
        only = {address.lower() for address in recipients}
        now = self._clock.now()
        rows = [
            row
            for i in envelope_ids
            for row in self._rows.get(i, [])
            if row.state is DeliveryState.REFUSED and (not only or row.recipient.lower() in only)
        ]
        for row in rows:
            row.state, row.next_attempt_at, row.sweep_at, row.finished_at = DeliveryState.QUEUED, now, now, None
            row.replayed_at, row.replayed_attempts, row.delay_reported = now, row.attempt_count, False
        return list(dict.fromkeys(row.envelope_id for row in rows))

    def leader(self, name: str) -> MemoryLeadership:
        return MemoryLeadership(self, name)

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

    async def message(self, envelope_id: UUID) -> Message:
        self._reachable()
        if envelope_id not in self._envelopes:
            raise NotFound
        envelope, rows = self._envelopes[envelope_id], self._rows[envelope_id]
        return Message(self._summary(envelope_id), tuple(map(_delivery, rows)), envelope.ret, envelope.envid)

    # -- retention

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
        gone = [i for i in ids if self._is_settled(i)]
        for envelope_id in gone:
            del self._envelopes[envelope_id], self._rows[envelope_id]
        self._events = {key: kept for key, kept in self._events.items() if key[0] not in gone}
        return len(gone), ids[-1] if len(ids) == limit else None

    async def forget_contents(
        self, tenant_id: UUID, since: datetime, *, after: UUID | None = None, limit: int = 500
    ) -> tuple[int, UUID | None]:
        low = max(first_id(since), after or UUID(int=0))
        ids = [i for i in self._of_tenant(tenant_id) if i > low][:limit]
        gone = [i for i in ids if self._envelopes[i].body and self._is_settled(i)]
        for envelope_id in gone:
            self._envelopes[envelope_id] = replace(self._envelopes[envelope_id], body=b"")
        return len(gone), ids[-1] if len(ids) == limit else None

    async def drop_days(self, before: datetime) -> list[str]:
        self._reachable()
        return []

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

    # -- below

    def _recipient(self, row: _Row) -> Recipient:
        tenant_id = self._envelopes[row.envelope_id].tenant_id
        return Recipient(
            row.number, row.recipient, row.attempt_count + 1, row.notify, row.orcpt,
            self._suppressed(tenant_id, row.recipient), row.replayed_at, row.replayed_attempts, row.delay_reported,
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
                self._rows[envelope.id] = [_Row(envelope.id, 0, due.recipient, now, now, notify=Notify.NEVER)]
        for number, suppression in then.suppressions:
            if (suppression.envelope_id, number) in recorded:
                self._suppress(suppression)

    def _all_rows(self) -> list[_Row]:
        return [row for rows in self._rows.values() for row in rows]

    def _place(self, rows: Sequence[_Row], placement: Placement) -> None:
        due = self._clock.now() + timedelta(seconds=placement.delay_seconds)
        for row in rows:
            row.state = DeliveryState.HELD if placement.held else DeliveryState.QUEUED
            row.next_attempt_at, row.sweep_at = due, max(row.sweep_at, due)

    def _release(self, rows: Sequence[_Row]) -> list[UUID]:
        found = [row for row in rows if row.state is DeliveryState.HELD]
        for row in found:
            now = row.next_attempt_at = row.sweep_at = self._clock.now()
            row.state = DeliveryState.QUEUED
            self._tell_change(Event.RELEASED, self._envelopes[row.envelope_id], row.number, row.recipient, due_at=now)
        return list(dict.fromkeys(row.envelope_id for row in found))

    def _held(self, worker_id: UUID) -> list[_Row]:
        return [r for r in self._all_rows() if r.state is DeliveryState.SENDING and r.claimed_by == worker_id]

    def _claimed(self, envelope_id: UUID, number: int, worker_id: UUID) -> _Row | None:
        for row in self._rows.get(envelope_id, []):
            if row.number == number and row.state is DeliveryState.SENDING and row.claimed_by == worker_id:
                return row
        return None

    def _put_back(self, row: _Row, sweep_at: datetime) -> None:
        """To the queue; what may have been sent counts as an attempt, and is held where its tenant wants that."""
        was_taken = row.state is DeliveryState.SENDING
        row.state, row.claimed_by, row.sweep_at = DeliveryState.QUEUED, None, sweep_at
        if was_taken and row.attempts and row.attempts[-1].finished_at is None:
            row.attempts[-1] = replace(row.attempts[-1], finished_at=self._clock.now())
            row.attempt_count += 1
            row.state = self._state_after_unknown(row.envelope_id)
            self._tell_unknown(row)

    def _tell_unknown(self, row: _Row) -> None:
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
        _take_out(row, attempt.number)
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
            e.tls_suite,
        )  # fmt: skip


class MemoryLeadership:
    """Leadership among those that share one MemoryStore."""

    def __init__(self, store: MemoryStore, name: str) -> None:
        self.name = name
        self._store = store

    @property
    def held(self) -> bool:
        return not self._store.down and self._store.leaders.get(self.name) is self

    async def try_acquire(self) -> bool:
        await self._store.ping()
        return self._store.leaders.setdefault(self.name, self) is self

    async def release(self) -> None:
        if self._store.leaders.get(self.name) is self:
            del self._store.leaders[self.name]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.release()


def _envelope(row: CoreEnvelope) -> Envelope:
    ret, envid, _ = row[12] or (None, None, [])
    return Envelope(
        UUID(bytes=row[0]), UUID(bytes=row[1]), UUID(bytes=row[2]), row[3], row[5], BodyType(row[6]), row[7],
        _EPOCH + timedelta(microseconds=row[11]), row[8], row[9], bool(row[10]),
        optional(Ret, ret), envid, suite_name(tls_suite(row[10])),
    )  # fmt: skip


def _take_out(row: _Row, number: int) -> None:
    """The attempt of that number, if it was begun and has not ended."""
    row.attempts = [a for a in row.attempts if a.number != number or a.finished_at is not None]


def _dead_letter(row: _Row, envelope: Envelope) -> DeadLetter:
    last = row.attempts[-1] if row.attempts else None
    said = (last.kind, last.reply_code, last.enhanced_code, last.reply_text) if last else (Kind.UNKNOWN, 0, "", "")
    return DeadLetter(
        row.envelope_id, row.number, envelope.tenant_id, envelope.reverse_path, row.recipient, row.attempt_count,
        row.finished_at, *said,
    )  # fmt: skip


def _delivery(row: _Row) -> Delivery:
    return Delivery(
        row.number, row.recipient, row.state, row.attempt_count, row.next_attempt_at, row.claimed_by, row.finished_at,
        tuple(row.attempts), row.notify, row.orcpt,
    )  # fmt: skip
