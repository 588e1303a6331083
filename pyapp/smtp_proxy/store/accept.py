"""The hot path: a batch of envelopes into Postgres in one transaction.

Rows come straight from the border as plain tuples. What is done per message here is done tens of thousands of
times a second, so there are no objects per message: three lists of tuples. A few messages go in one statement, more
by one COPY per table; the measurements behind that are in docs/decisions/0010-accept-by-statement-or-copy.md.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.store.ids import new_id
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from smtp_proxy.model.limits import Placement
    from smtp_proxy.store.pool import Connection

# As `_core.Batch.envelopes()` hands it over: id, tenant and credential (16 bytes each), reverse-path, recipients,
# body, body type, SMTPUTF8, HELO, client address, TLS, time of receipt (microseconds since 1970).
CoreEnvelope: TypeAlias = tuple[bytes, bytes, bytes, str, list[str], bytes, int, bool, str, str, bool, int]

_ENVELOPE_COLUMNS = (
    "id", "tenant_id", "credential_id", "reverse_path", "recipient_count", "size_bytes", "body_type", "smtputf8",
    "helo", "client_address", "tls", "received_at",
)  # fmt: skip
_BODY_COLUMNS = ("envelope_id", "content")
_DELIVERY_COLUMNS = ("envelope_id", "recipient_number", "recipient", "sweep_at")  # the rest has defaults
# Up to here one statement is quicker than COPY and costs less; parameters are held whole in memory, hence the bytes.
_STATEMENT_MESSAGES = 48
_STATEMENT_BYTES = 512 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOBODY = bytes(16)


class Rows:
    """The rows of a batch, one list per table."""

    __slots__ = ("bodies", "deliveries", "envelopes")

    def __init__(self, batch: Sequence[CoreEnvelope], sweep_at: datetime) -> None:
        envelopes: list[tuple[Any, ...]] = []
        bodies: list[tuple[Any, ...]] = []
        deliveries: list[tuple[Any, ...]] = []
        for (
            raw_id,
            tenant,
            credential,
            reverse_path,
            recipients,
            body,
            body_type,
            smtputf8,
            helo,
            address,
            tls,
            received,
        ) in batch:
            envelope_id = UUID(raw_id)
            envelopes.append((
                envelope_id, UUID(tenant), UUID(credential), reverse_path, len(recipients), len(body), body_type,
                smtputf8, helo, address, tls, _EPOCH + timedelta(microseconds=received),
            ))  # fmt: skip
            bodies.append((envelope_id, body))
            for number, recipient in enumerate(recipients):
                deliveries.append((envelope_id, number, recipient, sweep_at))
        self.envelopes, self.bodies, self.deliveries = envelopes, bodies, deliveries


async def accept(connection: Connection, batch: Sequence[CoreEnvelope], sweep_at: datetime) -> None:
    """Write the batch in one transaction; see Store.accept."""
    rows = Rows(batch, sweep_at)
    if len(batch) <= _STATEMENT_MESSAGES and sum(len(row[5]) for row in batch) <= _STATEMENT_BYTES:
        await _insert(connection, rows, sweep_at)
    else:
        await _copy(connection, rows)


async def place(
    connection: Connection, batch: Sequence[CoreEnvelope], sweep_at: datetime, placements: Mapping[bytes, Placement]
) -> None:
    """Write the batch in one transaction, and in it put some of it elsewhere than among what is ready."""
    placed = {UUID(row[0]): placements[row[0]] for row in batch if row[0] in placements}
    async with connection.transaction():
        await accept(connection, batch, sweep_at)
        await connection.execute(
            QUERIES["place"],
            list(placed),
            min(placed),
            max(placed),
            [int(DeliveryState.HELD if p.held else DeliveryState.QUEUED) for p in placed.values()],
            [timedelta(seconds=p.delay_seconds) for p in placed.values()],
        )


async def rehearse(connection: Connection, now: datetime) -> None:
    """Write a message, take it back, commit: all that accepting needs of the server, and no message.

    The savepoint makes the transaction one that has written, so its commit goes to disk like any other.
    """
    if await connection.fetchval(QUERIES["is_read_only"]) == "on":  # asked first: refused statements fill its log
        raise asyncpg.ReadOnlySQLTransactionError("the server only reads")
    row = (new_id(now).bytes, _NOBODY, _NOBODY, "", [""], b"", 0, False, "", "", False, 0)
    async with connection.transaction():
        written = connection.transaction()
        await written.start()
        await _insert(connection, Rows([row], now), now)
        await written.rollback()


async def _insert(connection: Connection, rows: Rows, sweep_at: datetime) -> None:
    """One statement, one round trip: what an idle system answers with."""
    numbers, recipients = [row[1] for row in rows.deliveries], [row[2] for row in rows.deliveries]
    await connection.execute(
        QUERIES["accept"],
        *zip(*rows.envelopes, strict=True),
        [row[1] for row in rows.bodies],
        [row[0] for row in rows.deliveries],
        numbers,
        recipients,
        sweep_at,
    )


async def _copy(connection: Connection, rows: Rows) -> None:
    """Eight round trips, and the least work per message: what a busy system answers with."""
    async with connection.transaction():
        await connection.copy_records_to_table("envelopes", records=rows.envelopes, columns=_ENVELOPE_COLUMNS)
        await connection.copy_records_to_table("bodies", records=rows.bodies, columns=_BODY_COLUMNS)
        await connection.copy_records_to_table("deliveries", records=rows.deliveries, columns=_DELIVERY_COLUMNS)
