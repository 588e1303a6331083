"""An envelope: one accepted message with its reverse-path and recipients (RFC 5321 2.3.1)."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum
from uuid import UUID

from smtp_proxy.model.dsn import Notify, Ret
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.record import record
from smtp_proxy.model.unknown import Tolerant


class BodyType(IntEnum):
    """What the BODY parameter of MAIL declared (RFC 6152)."""

    SEVEN_BIT = 0
    EIGHT_BIT_MIME = 1


class DeliveryState(Tolerant):
    """Where one recipient's copy stands. `deferred` is QUEUED with attempts behind it."""

    QUEUED = 0
    SENDING = 1
    DELIVERED = 2
    REFUSED = 3
    HELD = 4  # until an operator releases it
    CANCELLED = 5  # by an operator, before it was delivered


@record(frozen=True, slots=True)
class Envelope:
    """What was accepted. `body` is the message as received and mended: CRLF lines, dots unstuffed, no final dot."""

    id: UUID
    tenant_id: UUID
    credential_id: UUID
    reverse_path: str  # "" is the null reverse-path
    body: bytes
    body_type: BodyType
    smtputf8: bool
    received_at: datetime
    # Where it came from, for the Received field (RFC 5321 4.4).
    helo: str = ""
    client_address: str = ""
    tls: bool = True
    # RFC 3461; None: not given.
    ret: Ret | None = None
    envid: str | None = None  # xtext
    tls_suite: str | None = None  # as `model.tls` names it; None: no TLS, or not known


@record(frozen=True, slots=True)
class Recipient:
    """One recipient of an envelope, as claimed for an attempt."""

    number: int  # position among the envelope's recipients, from 0
    address: str
    attempt_number: int  # the attempt about to be made, from 1
    # RFC 3461; None: not given.
    notify: Notify | None = None
    orcpt: str | None = None  # type;xtext
    suppressed: str | None = None  # why this address gets no mail of this tenant
    replayed_at: datetime | None = None  # since when it is tried again after it was given up or held
    replayed_attempts: int = 0  # attempts behind it then
    delay_reported: bool = False  # its sender was told that it takes long
    route: str | None = None  # chosen by an operator; None: as the routes say


@record(frozen=True, slots=True)
class Job:
    """An envelope and those of its recipients that this worker has claimed."""

    envelope: Envelope
    recipients: tuple[Recipient, ...]
    lane: Lane = Lane.TRANSACTIONAL
    trouble: str | None = None  # why there is nothing to send; the body is empty then
