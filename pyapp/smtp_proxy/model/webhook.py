"""Where a tenant hears of its mail, and what it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from smtp_proxy.sealing import Sealed

# Counting is work for each: of one webhook, no more are counted.
EVENTS_COUNTED: Final = 100_000


class Event(StrEnum):
    """What became of one recipient's copy: in an attempt, or by an operator's hand."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"  # tried again later
    BOUNCED = "bounced"  # refused for good
    EXPIRED = "expired"  # given up by age (RFC 3463 3.5: 5.4.7)
    HELD = "held"  # until an operator releases it
    RELEASED = "released"  # by an operator: it is due now
    CANCELLED = "cancelled"  # by an operator: it is never delivered
    REPLAYED = "replayed"  # by an operator: what was bounced, expired or refused is due now
    REROUTED = "rerouted"  # by an operator: it goes another way from now on


@dataclass(frozen=True, slots=True)
class Webhook:
    """An endpoint of a tenant. No `events`: all."""

    id: UUID
    tenant_id: UUID
    url: str
    events: tuple[str, ...]
    sealed: Sealed = field(repr=False)
    created_at: datetime
    disabled_at: datetime | None = None
    failing_since: datetime | None = None
    failures: int = 0
    paused_until: datetime | None = None
    last_error: str = ""
    enabled_at: datetime | None = None  # by an operator, last

    @property
    def context(self) -> str:
        """What its secret is bound to."""
        return f"webhooks.sealed_secret of {self.id}"


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """One thing to tell one webhook."""

    envelope_id: UUID
    webhook_id: UUID
    recipient_number: int
    attempt_number: int  # below 0: of no attempt, but of an operator's change; the first is -1
    sequence: int  # the order within a message
    event: str
    occurred_at: datetime
    payload: dict[str, Any] = field(repr=False)
    tries: int = 0
    replayed_at: datetime | None = None

    def tried_since(self, webhook: Webhook) -> datetime:
        """From when its time counts: it occurred, or an operator asked for it once more."""
        return max(self.occurred_at, self.replayed_at or self.occurred_at, webhook.enabled_at or self.occurred_at)

    @property
    def id(self) -> str:
        """The same at every try, so that a receiver knows what it has already."""
        return f"{self.envelope_id}-{self.recipient_number}-{self.attempt_number}"


@dataclass(frozen=True, slots=True)
class Told:
    """How it went. `again_at` None: taken, or given up where there is an `error`."""

    event: WebhookEvent
    error: str = ""
    again_at: datetime | None = None

    @property
    def taken(self) -> bool:
        return not self.error
