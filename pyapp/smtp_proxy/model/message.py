"""A message as it is looked up: its envelope without the body, its deliveries, their attempts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from smtp_proxy.model.attempt import Kind, Outcome
from smtp_proxy.model.dsn import Notify, Ret
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.model.lane import Lane


@dataclass(frozen=True, slots=True)
class MessageSummary:
    """One line of a list of messages. `recipients` and `states` run in parallel."""

    id: UUID
    tenant_id: UUID
    credential_id: UUID
    reverse_path: str
    size_bytes: int
    received_at: datetime
    helo: str
    client_address: str
    tls: bool
    recipients: tuple[str, ...]
    states: tuple[DeliveryState, ...]
    tls_suite: str | None = None  # as `model.tls` names it; None: no TLS, or not known
    lane: Lane = Lane.TRANSACTIONAL


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt as it was recorded. `reply_code` 0: no reply came."""

    number: int  # from 1
    outcome: Outcome
    reply_code: int
    enhanced_code: str
    reply_text: str
    remote: str
    worker_id: UUID
    started_at: datetime
    finished_at: datetime | None  # None: sent, and nothing is known yet
    kind: Kind = Kind.UNKNOWN


@dataclass(frozen=True, slots=True)
class Delivery:
    """One recipient's copy and how it fared so far."""

    number: int  # position among the recipients, from 0
    recipient: str
    state: DeliveryState
    attempt_count: int
    next_attempt_at: datetime
    claimed_by: UUID | None
    finished_at: datetime | None
    attempts: tuple[AttemptRecord, ...]
    # RFC 3461; None: not given.
    notify: Notify | None = None
    orcpt: str | None = None  # type;xtext
    route: str | None = None  # chosen by an operator; None: as the routes say
    waits_for: str | None = None  # why it was put back without an attempt


@dataclass(frozen=True, slots=True)
class Message:
    """Everything that is known of one message."""

    summary: MessageSummary
    deliveries: tuple[Delivery, ...]
    # RFC 3461; None: not given.
    ret: Ret | None = None
    envid: str | None = None  # xtext
