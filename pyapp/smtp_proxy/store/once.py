"""Accepting what may have been accepted before: keys and messages in one transaction.

By plain INSERTs, which cost more than the COPY of all other mail and can stand behind a question in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.store.accept import CoreEnvelope, tls_suite
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from smtp_proxy.model.limits import Placement
    from smtp_proxy.model.submission import SubmissionKey
    from smtp_proxy.store.pool import Connection

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Times:
    """When is now, and when the sweeper looks at what nobody took."""

    now: datetime
    sweep_at: datetime


async def accept_once(
    connection: Connection,
    batch: Sequence[CoreEnvelope],
    keys: Mapping[bytes, SubmissionKey],
    placements: Mapping[bytes, Placement],
    times: Times,
) -> dict[bytes, bytes]:
    """See Store.accept_once."""
    async with connection.transaction():
        first = firsts(batch, keys)
        known = await _known(connection, first)
        named = {row[0]: known.get(_pair(keys[row[0]]), row[0]) if row[0] in keys else row[0] for row in batch}
        fresh = [row for row in batch if named[row[0]] == row[0]]
        if fresh:
            await connection.execute(QUERIES["insert_envelopes"], *_columns(map(_envelope, fresh)))
            rows = (delivery for row in fresh for delivery in _deliveries(row, placements.get(row[0]), times))
            await connection.execute(QUERIES["insert_deliveries"], *_columns(rows))
    return named


def firsts(batch: Sequence[CoreEnvelope], keys: Mapping[bytes, SubmissionKey]) -> list[tuple[SubmissionKey, bytes]]:
    """Each key once, with the first message that has it; in the order in which everybody takes them."""
    found: dict[tuple[UUID, bytes], tuple[SubmissionKey, bytes]] = {}
    for row in batch:
        if (key := keys.get(row[0])) is not None:
            found.setdefault(_pair(key), (key, row[0]))
    return [found[pair] for pair in sorted(found)]


async def _known(
    connection: Connection, first: Sequence[tuple[SubmissionKey, bytes]]
) -> dict[tuple[UUID, bytes], bytes]:
    if not first:
        return {}
    rows = await connection.fetch(
        QUERIES["take_submission_keys"],
        [key.credential_id for key, _ in first],
        [key.digest for key, _ in first],
        [UUID(bytes=envelope_id) for _, envelope_id in first],
        [key.seconds for key, _ in first],
    )
    return {(row["credential_id"], row["digest"]): row["envelope_id"].bytes for row in rows}


def _pair(key: SubmissionKey) -> tuple[UUID, bytes]:
    return UUID(bytes=key.credential_id.bytes), key.digest


def _columns(rows: Iterator[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _envelope(row: CoreEnvelope) -> tuple[Any, ...]:
    ret, envid, _ = row[12] or (None, None, [])
    return (
        UUID(bytes=row[0]), UUID(bytes=row[1]), UUID(bytes=row[2]), row[3], len(row[4]), len(row[5]), row[6], row[7],
        row[8], row[9], bool(row[10]), _EPOCH + timedelta(microseconds=row[11]), ret, envid, tls_suite(row[10]), row[5],
    )  # fmt: skip


def _deliveries(row: CoreEnvelope, placement: Placement | None, times: Times) -> Iterator[tuple[Any, ...]]:
    asked = row[12][2] if row[12] else [(None, None)] * len(row[4])
    state, due, swept = DeliveryState.QUEUED, None, times.sweep_at
    if placement is not None:
        state = DeliveryState.HELD if placement.held else DeliveryState.QUEUED
        due = times.now + timedelta(seconds=placement.delay_seconds)
        swept = max(swept, due)
    for number, (recipient, (notify, orcpt)) in enumerate(zip(row[4], asked, strict=True)):
        yield UUID(bytes=row[0]), number, recipient, swept, notify, orcpt, row[13], int(state), due
