"""What the suite works with: a store, rows as the border hands them over, attempts."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from smtp_proxy.model.attempt import Attempt, Outcome, RecipientResult
from smtp_proxy.model.envelope import Job
from smtp_proxy.store.ids import new_id

TENANT = UUID("019aba2c-8f1e-7c3a-9d3e-000000000001")
CREDENTIAL = UUID("019aba2c-8f1e-7c3a-9d3e-000000000002")
LEASE = 30.0
SWEEP_AFTER = 15.0


def core_envelope(
    recipients: Sequence[str] = ("you@example.net",), body: bytes = b"Subject: x\r\n\r\nhi\r\n", **changes: Any
) -> tuple:
    """A row as the border hands it over."""
    row = {
        "id": new_id(datetime.now(UTC)).bytes,
        "tenant": TENANT.bytes,
        "credential": CREDENTIAL.bytes,
        "reverse_path": "me@example.com",
        "recipients": list(recipients),
        "body": body,
        "body_type": 0,
        "smtputf8": False,
        "helo": "client.example",
        "client_address": "192.0.2.1",
        "tls": True,
        "received_at_us": int(time.time() * 1e6),
        "dsn": None,
        "lane": 0,
    }
    return tuple({**row, **changes}.values())


def ids_of(batch: Sequence[tuple]) -> list[UUID]:
    return [UUID(bytes=row[0]) for row in batch]


def attempt_for(
    job: Job, worker: UUID, outcome: Outcome, *, recipient: int = 0, retry_in: float | None = None
) -> Attempt:
    now = datetime.now(UTC)
    claimed = next(r for r in job.recipients if r.number == recipient)
    code = {Outcome.DELIVERED: 250, Outcome.DEFERRED: 451, Outcome.REFUSED: 550, Outcome.UNKNOWN: 0}[outcome]
    result = RecipientResult(recipient, outcome, code, f"{code // 100}.0.0", "so it went", "mx.example:25")
    next_at = now + timedelta(seconds=retry_in) if retry_in is not None else None
    return Attempt(job.envelope.id, claimed.attempt_number, worker, now, now, result, next_at)


@dataclass
class Stores:
    """The store under test and a way to let time pass for what it keeps."""

    store: Any
    let_pass: Callable[[float], Awaitable[None]]

    async def accepted(self, *batch: tuple) -> list[UUID]:
        await self.store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
        return ids_of(batch)
