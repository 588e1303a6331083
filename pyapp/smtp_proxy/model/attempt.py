"""An attempt: what happened when one recipient's copy was offered to the next hop."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from smtp_proxy.model.record import record
from smtp_proxy.model.unknown import Tolerant


class Outcome(Tolerant):
    """How an attempt ended."""

    DELIVERED = 1
    DEFERRED = 2  # may be tried again
    REFUSED = 3  # will not be tried again
    UNKNOWN = 4  # sent with its final dot, and no answer came: by the tenant's policy tried again or held


class Kind(Tolerant):
    """Why an attempt ended as it did: what its retry, its report and the tenant's figures go by."""

    UNKNOWN = 0  # not classified
    ACCEPTED = 1
    SOFT = 2  # a passing trouble of the next hop
    HARD = 3  # this address will never take mail
    BLOCK = 4  # the sender, its address or its content is not wanted
    QUOTA = 5  # a mailbox is full, or a sending quota is used up
    POLICY = 6  # greylisting, rates, rules of the receiver
    AUTH = 7  # our login to the next hop, or the sender's authentication (SPF, DKIM, DMARC)
    TLS = 8
    DNS = 9
    TIMEOUT = 10
    NETWORK = 11
    LOCAL = 12  # our own refusal: nothing was asked of a next hop


@record(frozen=True, slots=True)
class RecipientResult:
    """The next hop's answer for one recipient. `reply_code` 0: no reply came (network, time-out)."""

    number: int
    outcome: Outcome
    reply_code: int
    enhanced_code: str  # RFC 3463, "" where the server gave none
    reply_text: str
    remote: str  # host:port asked
    kind: Kind = Kind.UNKNOWN
    route: str = ""  # by which name its retries are scheduled; only where it was not delivered
    dsn_passed_on: bool = False  # the next hop took what the sender asked to be told (RFC 3461 5.2.1)
    # Not 0: nothing was asked of the next hop because it is busy. No attempt; due again in so many seconds.
    postponed_seconds: float = 0.0


@record(frozen=True, slots=True)
class Sending:
    """One recipient's copy that is about to be sent for good, as it is written down before."""

    envelope_id: UUID
    tenant_id: UUID
    recipient_number: int
    attempt_number: int  # from 1
    worker_id: UUID
    started_at: datetime
    remote: str  # host:port


@record(frozen=True, slots=True)
class Attempt:
    """One attempt, as recorded. `next_attempt_at` is None unless the outcome is DEFERRED or UNKNOWN."""

    envelope_id: UUID
    number: int  # attempt number, from 1
    worker_id: UUID
    started_at: datetime
    finished_at: datetime
    result: RecipientResult
    next_attempt_at: datetime | None


@record(frozen=True, slots=True)
class Postponed:
    """A claimed recipient whose next hop is busy: no attempt was made, and it is due again later."""

    envelope_id: UUID
    recipient_number: int
    worker_id: UUID
    next_attempt_at: datetime
    why: str = ""  # in words, for who asks; no reply of a server
