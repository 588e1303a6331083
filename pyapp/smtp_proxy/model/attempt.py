"""An attempt: what happened when one recipient's copy was offered to the next hop."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from smtp_proxy.model.unknown import Tolerant


class Outcome(Tolerant):
    """How an attempt ended."""

    DELIVERED = 1
    DEFERRED = 2  # may be tried again
    REFUSED = 3  # will not be tried again


@dataclass(frozen=True, slots=True)
class RecipientResult:
    """The next hop's answer for one recipient. `reply_code` 0: no reply came (network, time-out)."""

    number: int
    outcome: Outcome
    reply_code: int
    enhanced_code: str  # RFC 3463, "" where the server gave none
    reply_text: str
    remote: str  # host:port asked


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt, as recorded. `next_attempt_at` is None unless the outcome is DEFERRED."""

    envelope_id: UUID
    number: int  # attempt number, from 1
    worker_id: UUID
    started_at: datetime
    finished_at: datetime
    result: RecipientResult
    next_attempt_at: datetime | None
