"""Listing messages: a person's question, which must not become a statement that reads everything.

A state that is left again (queued, sending, held) has an index: if few messages stand there, those are looked up. In
all other cases messages are looked at newest first, a page at a time, until enough are found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.store import lookup
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from uuid import UUID

    from smtp_proxy.model.message import MessageSummary
    from smtp_proxy.store.pool import Connection

_OPEN: Final = (DeliveryState.QUEUED, DeliveryState.SENDING, DeliveryState.HELD)
# Messages that one statement looks at.
_PAGE: Final = 10_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which messages; None: any."""

    tenant_id: UUID | None
    state: DeliveryState | None
    before: UUID | None
    by_index: bool = True  # whether it is not known yet that too many stand in that state


async def look(connection: Connection, wanted: Wanted, limit: int) -> tuple[list[MessageSummary], Wanted | None]:
    """Some of them, newest first, and where to look on (None: that was all). Within a transaction."""
    await connection.execute(QUERIES["plan_for_these_values"])
    if wanted.state in _OPEN and wanted.by_index:
        rows = await connection.fetch(QUERIES["in_open_state"], wanted.state, _PAGE)
        if len(rows) < _PAGE:
            ids = list({row["envelope_id"] for row in rows})
            return await _list(connection, wanted, limit, ids=ids), None
    until = None
    if wanted.state is not None:
        until = await connection.fetchval(QUERIES["list_until"], wanted.tenant_id, wanted.before, _PAGE)
    found = await _list(connection, wanted, limit, until=until)
    return found, None if until is None else replace(wanted, before=until, by_index=False)


async def _list(
    connection: Connection, wanted: Wanted, limit: int, *, until: UUID | None = None, ids: list[UUID] | None = None
) -> list[MessageSummary]:
    if ids == []:
        return []
    rows = await connection.fetch(
        QUERIES["list_messages"], wanted.tenant_id, wanted.state, wanted.before, limit, until, ids
    )
    return [lookup.summary(row, row["recipients"], row["states"], row["lane"]) for row in rows]
