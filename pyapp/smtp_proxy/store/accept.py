"""The hot path: a batch of envelopes into Postgres in one transaction.

Rows come straight from the border as plain tuples. What is done per message here is done tens of thousands of
times a second, so there are no objects per message: three lists of tuples. A few messages go in one statement, more
by one COPY per table; the measurements behind that are in docs/decisions/0010-accept-by-statement-or-copy.md.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from smtp_proxy.model.dsn import DsnRow
from smtp_proxy.store.ids import new_id
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smtp_proxy.store.pool import Connection

# As `_core.Batch.envelopes()` hands it over: id, tenant and credential (16 bytes each), reverse-path, recipients,
# body, body type, SMTPUTF8, HELO, client address, TLS, time of receipt (microseconds since 1970), DSN if asked for.
CoreEnvelope: TypeAlias = tuple[
    bytes, bytes, bytes, str, list[str], bytes, int, bool, str, str, bool, int, DsnRow | None
]

_ENVELOPE_COLUMNS = (
    "id", "tenant_id", "credential_id", "reverse_path", "recipient_count", "size_bytes", "body_type", "smtputf8",
    "helo", "client_address", "tls", "received_at",
)  # fmt: skip
_BODY_COLUMNS = ("envelope_id", "content")
_DELIVERY_COLUMNS = ("envelope_id", "recipient_number", "recipient", "sweep_at")  # the rest has defaults
# Most batches have nothing for these, and then do not write them.
_ENVELOPE_DSN_COLUMNS = (*_ENVELOPE_COLUMNS, "dsn_ret", "dsn_envid")
_DELIVERY_DSN_COLUMNS = (*_DELIVERY_COLUMNS, "dsn_notify", "dsn_orcpt")
# Up to here one statement is quicker than COPY and costs less; parameters are held whole in memory, hence the bytes.
_STATEMENT_MESSAGES = 48
_STATEMENT_BYTES = 512 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOBODY = bytes(16)


class Rows:
    """The rows of a batch, one list per table. `has_dsn`: those of two tables have the columns of RFC 3461 too."""

    __slots__ = ("bodies", "deliveries", "envelopes", "has_dsn")

    def __init__(self, batch: Sequence[CoreEnvelope], sweep_at: datetime) -> None:
        envelopes: list[tuple[Any, ...]] = []
        bodies: list[tuple[Any, ...]] = []
        deliveries: list[tuple[Any, ...]] = []
        has_dsn = False
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
            dsn,
        ) in batch:
            envelope_id = UUID(raw_id)
            envelopes.append((
                envelope_id, UUID(tenant), UUID(credential), reverse_path, len(recipients), len(body), body_type,
                smtputf8, helo, address, tls, _EPOCH + timedelta(microseconds=received),
            ))  # fmt: skip
            bodies.append((envelope_id, body))
            for number, recipient in enumerate(recipients):
                deliveries.append((envelope_id, number, recipient, sweep_at))
            if dsn is not None:
                has_dsn = True
        self.envelopes, self.bodies, self.deliveries = envelopes, bodies, deliveries
        self.has_dsn = has_dsn
        if has_dsn:
            self._add_dsn(batch)

    def _add_dsn(self, batch: Sequence[CoreEnvelope]) -> None:
        asked = [row[12] or (None, None, [(None, None)] * len(row[4])) for row in batch]
        self.envelopes = [(*row, dsn[0], dsn[1]) for row, dsn in zip(self.envelopes, asked, strict=True)]
        of_recipients = itertools.chain.from_iterable(dsn[2] for dsn in asked)
        self.deliveries = [(*row, *dsn) for row, dsn in zip(self.deliveries, of_recipients, strict=True)]


async def accept(connection: Connection, batch: Sequence[CoreEnvelope], sweep_at: datetime) -> None:
    """Write the batch in one transaction; see Store.accept."""
    rows = Rows(batch, sweep_at)
    if len(batch) <= _STATEMENT_MESSAGES and sum(len(row[5]) for row in batch) <= _STATEMENT_BYTES:
        await _insert(connection, rows, sweep_at)
    else:
        await _copy(connection, rows)


async def rehearse(connection: Connection, now: datetime) -> None:
    """Write a message, take it back, commit: all that accepting needs of the server, and no message.

    The savepoint makes the transaction one that has written, so its commit goes to disk like any other.
    """
    if await connection.fetchval(QUERIES["is_read_only"]) == "on":  # asked first: refused statements fill its log
        raise asyncpg.ReadOnlySQLTransactionError("the server only reads")
    row = (new_id(now).bytes, _NOBODY, _NOBODY, "", [""], b"", 0, False, "", "", False, 0, None)
    async with connection.transaction():
        written = connection.transaction()
        await written.start()
        await _insert(connection, Rows([row], now), now)
        await written.rollback()


async def _insert(connection: Connection, rows: Rows, sweep_at: datetime) -> None:
    """One statement, one round trip: what an idle system answers with."""
    numbers, recipients = [row[1] for row in rows.deliveries], [row[2] for row in rows.deliveries]
    dsn = [[row[place] for row in rows.deliveries] for place in (4, 5)] if rows.has_dsn else ()
    await connection.execute(
        QUERIES["accept_with_dsn" if rows.has_dsn else "accept"],
        *zip(*rows.envelopes, strict=True),
        [row[1] for row in rows.bodies],
        [row[0] for row in rows.deliveries],
        numbers,
        recipients,
        *dsn,
        sweep_at,
    )


async def _copy(connection: Connection, rows: Rows) -> None:
    """Eight round trips, and the least work per message: what a busy system answers with."""
    of_envelopes = _ENVELOPE_DSN_COLUMNS if rows.has_dsn else _ENVELOPE_COLUMNS
    of_deliveries = _DELIVERY_DSN_COLUMNS if rows.has_dsn else _DELIVERY_COLUMNS
    async with connection.transaction():
        await connection.copy_records_to_table("envelopes", records=rows.envelopes, columns=of_envelopes)
        await connection.copy_records_to_table("bodies", records=rows.bodies, columns=_BODY_COLUMNS)
        await connection.copy_records_to_table("deliveries", records=rows.deliveries, columns=of_deliveries)
