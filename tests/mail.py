"""Mail for tests of the worker and of delivery."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from uuid import UUID

from stream_suite import envelope_id

from smtp_proxy.model.envelope import BodyType, Envelope, Job, Recipient

TENANT = UUID(int=1)
CREDENTIAL = UUID(int=2)
BODY = b"From: a@sender.example\r\nTo: b@rcpt.example\r\nSubject: test\r\n\r\nHello.\r\n.leading dot\r\n"


def envelope(
    body: bytes = BODY,
    *,
    reverse_path: str = "a@sender.example",
    body_type: BodyType = BodyType.SEVEN_BIT,
    smtputf8: bool = False,
    received_at: datetime | None = None,
) -> Envelope:
    return Envelope(
        envelope_id(),
        TENANT,
        CREDENTIAL,
        reverse_path,
        body,
        body_type,
        smtputf8,
        received_at or datetime.now(UTC),
        "client.example",
        "192.0.2.7:50000",
    )


def job(*recipients: str, attempt_number: int = 1, of: Envelope | None = None) -> Job:
    addresses = recipients or ("b@rcpt.example",)
    return Job(of or envelope(), tuple(Recipient(n, a, attempt_number) for n, a in enumerate(addresses)))


def core_envelope(
    *recipients: str, body: bytes = BODY, received_at_us: int | None = None, lane: int = 0
) -> tuple[bytes, bytes, bytes, str, list[str], bytes, int, bool, str, str, bool, int, None, int]:
    """As the core hands it over the border."""
    return (
        envelope_id().bytes,
        TENANT.bytes,
        CREDENTIAL.bytes,
        "a@sender.example",
        list(recipients or ("b@rcpt.example",)),
        body,
        0,
        False,
        "client.example",
        "192.0.2.7:50000",
        True,
        received_at_us if received_at_us is not None else int(time.time() * 1e6),
        None,
        lane,
    )
