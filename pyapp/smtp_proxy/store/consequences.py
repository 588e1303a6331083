"""What recorded attempts and postponements bring about, written in their transaction: reports, suppressions.

So a report is neither lost nor doubled: it is there when the attempt is, and when the answer to a COMMIT was lost and
the same is recorded again, its id is there already.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from smtp_proxy.model.attempt import Attempt
from smtp_proxy.model.dsn import Notify
from smtp_proxy.model.envelope import Envelope
from smtp_proxy.model.outcome import Consequences, DueReport
from smtp_proxy.store import suppressions
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from smtp_proxy.store.pool import Connection

Place = tuple[UUID, int]  # a delivery's key


async def write(connection: Connection, places: set[Place], consequences: Consequences, sweep_after: timedelta) -> None:
    """Within the transaction, behind the statement that settled `places` or put them back; for those alone."""
    newly_late = await _newly_late(connection, late_places(consequences.reports, places))
    for report in consequences.reports:
        envelope = report.render(numbers_to_tell(report, places, newly_late))
        if envelope is not None:
            await _enqueue(connection, envelope, report, sweep_after)
    for number, suppression in consequences.suppressions:
        if (suppression.envelope_id, number) in places:
            await suppressions.add(
                connection,
                suppression.tenant_id,
                [suppression.address],
                suppression.reason,
                suppression.envelope_id,
            )


async def recorded(connection: Connection, attempts: Sequence[Attempt], consequences: Consequences) -> set[Place]:
    """Of which of these attempts, which something follows from, stand recorded as they are given."""
    return await _recorded(connection, concerned(attempts, consequences))


def concerned(attempts: Sequence[Attempt], consequences: Consequences) -> list[Attempt]:
    """Those that something follows from."""
    places = {(report.about, number) for report in consequences.reports for number in report.numbers}
    places |= {(s.envelope_id, number) for number, s in consequences.suppressions if s.envelope_id is not None}
    return [attempt for attempt in attempts if (attempt.envelope_id, attempt.result.number) in places]


def late_places(reports: Sequence[DueReport], recorded: set[Place]) -> list[Place]:
    """Deliveries whose delay is to be told."""
    return [place for r in reports for number in r.delayed if (place := (r.about, number)) in recorded]


def numbers_to_tell(report: DueReport, recorded: set[Place], newly_late: set[Place]) -> frozenset[int]:
    """Of whom a report tells in the end."""
    return frozenset(
        number
        for number in report.numbers
        if (report.about, number) in recorded and (number not in report.delayed or (report.about, number) in newly_late)
    )


async def _recorded(connection: Connection, attempts: Sequence[Attempt]) -> set[Place]:
    if not attempts:
        return set()
    ids = [a.envelope_id for a in attempts]
    rows = await connection.fetch(
        QUERIES["recorded"],
        ids,
        [a.result.number for a in attempts],
        [a.number for a in attempts],
        [a.worker_id for a in attempts],
        [a.finished_at for a in attempts],
        min(ids),
        max(ids),
    )
    return {(row["envelope_id"], row["recipient_number"]) for row in rows}


async def _newly_late(connection: Connection, places: Sequence[Place]) -> set[Place]:
    if not places:
        return set()
    ids = [place[0] for place in places]
    numbers = [place[1] for place in places]
    rows = await connection.fetch(QUERIES["tell_delay"], ids, numbers, min(ids), max(ids))
    return {(row["envelope_id"], row["recipient_number"]) for row in rows}


async def _enqueue(connection: Connection, envelope: Envelope, report: DueReport, sweep_after: timedelta) -> None:
    await connection.execute(
        QUERIES["add_report"],
        envelope.id,
        envelope.tenant_id,
        envelope.credential_id,
        envelope.reverse_path,
        len(envelope.body),
        int(envelope.body_type),
        envelope.smtputf8,
        envelope.helo,
        envelope.client_address,
        envelope.received_at,
        envelope.body,
        report.recipient,
        sweep_after,
        int(Notify.NEVER),
        int(report.lane),
    )
