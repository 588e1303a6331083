"""Claiming: queued deliveries become one worker's, and their envelopes are loaded."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from smtp_proxy.model.dsn import Notify, Ret, optional
from smtp_proxy.model.envelope import BodyType, Envelope, Job, Recipient
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.mailbox import has_one_spelling
from smtp_proxy.model.tls import suite_name
from smtp_proxy.store import suppressions
from smtp_proxy.store.queries import QUERIES
from smtp_proxy.telemetry.metrics import BODIES_MISSING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta
    from uuid import UUID

    import asyncpg

    from smtp_proxy.store.pool import Connection

log = logging.getLogger(__name__)

# What `explain` says of it, as what it waits for and as its attempt.
_UNREADABLE: Final = "this release can not read it: see the worker's log (message_unreadable)"
_BODY_MISSING: Final = "its body is missing in the database"


async def claim(
    connection: Connection, envelope_ids: Sequence[UUID], worker_id: UUID, lease: timedelta, max_bytes: int
) -> list[Job]:
    """See Store.claim."""
    low, high = min(envelope_ids), max(envelope_ids)
    rows = await connection.fetch(QUERIES["claim"], envelope_ids, low, high, worker_id, lease)
    if not rows:
        return []
    by_envelope: dict[UUID, list[asyncpg.Record]] = {}
    for row in rows:
        by_envelope.setdefault(row["envelope_id"], []).append(row)
    kept, excess = split_by_size({i: r[0]["size_bytes"] for i, r in by_envelope.items()}, max_bytes)
    if excess:
        await connection.fetch(QUERIES["unclaim"], excess, low, high, worker_id)
    suppressed = await _suppressed(connection, rows)
    contents = await _contents(connection, kept)
    jobs, unreadable = [], []
    for envelope_id in kept:
        body = contents.get(envelope_id)
        if body is None:
            BODIES_MISSING.inc()
            log.error("the body of %s is missing", envelope_id, extra={"action": "body_missing"})
        try:
            jobs.append(_job(by_envelope[envelope_id], body, suppressed))
        except ValueError as error:
            # Of a later release perhaps, which may be delivering it a moment later.
            log.error("%s can not be read: %s", envelope_id, error, extra={"action": "message_unreadable"})  # noqa: TRY400
            unreadable.append(envelope_id)
    if unreadable:
        # Kept by this worker, it would never be looked at again as long as the lease is renewed.
        await connection.execute(QUERIES["set_aside"], unreadable, low, high, worker_id, _UNREADABLE)
    return jobs


async def _suppressed(connection: Connection, rows: Sequence[asyncpg.Record]) -> Mapping[suppressions.Wanted, str]:
    """Why, of those addresses that the statement could not look up by itself."""
    unknown = [row for row in rows if row["suppressed"] is None and not has_one_spelling(row["recipient"])]
    if not unknown:
        return {}
    return await suppressions.reasons(connection, [(row["tenant_id"], row["recipient"]) for row in unknown])


async def _contents(connection: Connection, envelope_ids: Sequence[UUID]) -> dict[UUID, bytes]:
    found: dict[UUID, bytes] = {}
    for query in ("contents", "long_contents", "older_contents"):
        wanted = [envelope_id for envelope_id in envelope_ids if envelope_id not in found]
        if wanted:
            rows = await connection.fetch(QUERIES[query], wanted, min(wanted), max(wanted))
            found |= {row["envelope_id"]: row["content"] for row in rows}
    return found


def split_by_size(sizes: dict[UUID, int], max_bytes: int) -> tuple[list[UUID], list[UUID]]:
    """Oldest first, what fits and what does not; the first always fits."""
    kept: list[UUID] = []
    excess: list[UUID] = []
    total = 0
    for envelope_id in sorted(sizes):
        total += sizes[envelope_id]
        (kept if total <= max_bytes or not kept else excess).append(envelope_id)
    return kept, excess


def _job(rows: list[asyncpg.Record], body: bytes | None, suppressed: Mapping[suppressions.Wanted, str]) -> Job:
    first = rows[0]
    envelope = Envelope(
        id=first["envelope_id"],
        tenant_id=first["tenant_id"],
        credential_id=first["credential_id"],
        reverse_path=first["reverse_path"],
        body=b"" if body is None else body,
        body_type=BodyType(first["body_type"]),
        smtputf8=first["smtputf8"],
        received_at=first["received_at"],
        helo=first["helo"],
        client_address=first["client_address"],
        tls=first["tls"],
        ret=optional(Ret, first["dsn_ret"]),
        envid=first["dsn_envid"],
        tls_suite=suite_name(first["tls_suite"]),
    )
    recipients = tuple(sorted((_recipient(row, suppressed) for row in rows), key=lambda recipient: recipient.number))
    return Job(envelope, recipients, Lane(first["lane"]), _BODY_MISSING if body is None else None)


def _recipient(row: asyncpg.Record, suppressed: Mapping[suppressions.Wanted, str]) -> Recipient:
    reason = row["suppressed"]
    if reason is None and suppressed:
        reason = suppressed.get((row["tenant_id"], row["recipient"]))
    return Recipient(
        row["recipient_number"],
        row["recipient"],
        row["attempt_count"] + 1,
        optional(Notify, row["dsn_notify"]),
        row["dsn_orcpt"],
        reason,
        row["replayed_at"],
        row["replayed_attempts"] or 0,
        row["delay_reported"],
        row["route"],
    )
