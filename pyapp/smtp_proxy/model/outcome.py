"""What becomes of mail that is not delivered: what its recorded attempts bring about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from smtp_proxy.model.attempt import Kind
from smtp_proxy.model.envelope import Envelope
from smtp_proxy.model.lane import Lane


@dataclass(frozen=True, slots=True)
class Suppression:
    """An address that gets no more mail of a tenant. It is kept in lower case."""

    tenant_id: UUID
    address: str
    reason: str
    envelope_id: UUID | None = None  # whose refusal put it there
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DueReport:
    """A report to be sent if its attempts are recorded.

    `numbers`: the recipients of `about` that it tells of. `render` writes it about those of them that were recorded, as
    an envelope with one recipient; of `delayed` only those come that were not told of before.
    """

    id: UUID
    about: UUID
    numbers: frozenset[int]
    delayed: frozenset[int]
    recipient: str
    render: Callable[[frozenset[int]], Envelope | None]
    lane: Lane = Lane.TRANSACTIONAL  # of what it is about: the bounces of a newsletter keep nobody waiting either


@dataclass(frozen=True, slots=True)
class Consequences:
    """What is done in the transaction that records attempts, for those that are recorded.

    `suppressions`: each with the recipient's number in its envelope.
    """

    reports: Sequence[DueReport] = ()
    suppressions: Sequence[tuple[int, Suppression]] = ()

    def __bool__(self) -> bool:
        return bool(self.reports or self.suppressions)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Consequences:
        """All of them as one."""
        return Consequences(
            [report for part in parts for report in part.reports],
            [suppression for part in parts for suppression in part.suppressions],
        )


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A recipient's copy that was refused or given up."""

    envelope_id: UUID
    number: int
    tenant_id: UUID
    reverse_path: str
    recipient: str
    attempt_count: int
    finished_at: datetime | None
    kind: Kind
    reply_code: int
    enhanced_code: str
    reply_text: str
