"""A delivery as the store in memory keeps it, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from smtp_proxy.model.attempt import Kind
from smtp_proxy.model.dsn import Notify, Ret, optional
from smtp_proxy.model.envelope import BodyType, DeliveryState, Envelope
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.message import AttemptRecord, Delivery
from smtp_proxy.model.outcome import DeadLetter
from smtp_proxy.model.tls import suite_name
from smtp_proxy.store.accept import CoreEnvelope, tls_suite

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Row:
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
    lane: Lane = Lane.TRANSACTIONAL
    route: str | None = None
    waits_for: str | None = None


def envelope_of(row: CoreEnvelope) -> Envelope:
    ret, envid, _ = row[12] or (None, None, [])
    return Envelope(
        UUID(bytes=row[0]), UUID(bytes=row[1]), UUID(bytes=row[2]), row[3], row[5], BodyType(row[6]), row[7],
        _EPOCH + timedelta(microseconds=row[11]), row[8], row[9], bool(row[10]),
        optional(Ret, ret), envid, suite_name(tls_suite(row[10])),
    )  # fmt: skip


def take_out(row: Row, number: int) -> None:
    """The attempt of that number, if it was begun and has not ended."""
    row.attempts = [a for a in row.attempts if a.number != number or a.finished_at is not None]


def dead_letter_of(row: Row, envelope: Envelope) -> DeadLetter:
    last = row.attempts[-1] if row.attempts else None
    said = (last.kind, last.reply_code, last.enhanced_code, last.reply_text) if last else (Kind.UNKNOWN, 0, "", "")
    return DeadLetter(
        row.envelope_id, row.number, envelope.tenant_id, envelope.reverse_path, row.recipient, row.attempt_count,
        row.finished_at, *said,
    )  # fmt: skip


def delivery_of(row: Row) -> Delivery:
    return Delivery(
        row.number, row.recipient, row.state, row.attempt_count, row.next_attempt_at, row.claimed_by, row.finished_at,
        tuple(row.attempts), row.notify, row.orcpt, row.route, row.waits_for,
    )  # fmt: skip
