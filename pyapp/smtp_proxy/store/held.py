"""Mail that an operator holds, releases or cancels; and webhooks told of it, in the same transaction.

Held mail is released in batches, oldest first, by an index that has nothing else in it (migration 0009).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from smtp_proxy.model.change import Change
from smtp_proxy.model.webhook import Event
from smtp_proxy.store.queries import QUERIES
from smtp_proxy.store.retention import forget_settled

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from smtp_proxy.store.pool import Connection

_STATEMENTS: Final = {Change.HOLD: "hold_named", Change.CANCEL: "cancel_named", Change.RELEASE: "release_named"}
EVENT_OF: Final = {Change.HOLD: Event.HELD, Change.CANCEL: Event.CANCELLED, Change.RELEASE: Event.RELEASED}
# Lower than any message's id.
FIRST: Final = UUID(int=0)


async def change_named(connection: Connection, change: Change, envelope_ids: Sequence[UUID]) -> list[UUID]:
    """See Store.change."""
    if not envelope_ids:
        return []
    low, high = min(envelope_ids), max(envelope_ids)
    async with connection.transaction():
        rows = await connection.fetch(QUERIES[_STATEMENTS[change]], envelope_ids, low, high)
        changed = await tell_of(connection, EVENT_OF[change], rows)
        if changed and change is Change.CANCEL:
            await forget_settled(connection, changed)
    return changed


async def change_next(
    connection: Connection, change: Change, tenant_id: UUID, after: UUID, before: UUID, batch: int
) -> tuple[int, UUID | None]:
    """Change some of a tenant's; returns how many messages, and after which one to go on (None: that was all)."""
    rows = await connection.fetch(QUERIES["messages_of_tenant"], tenant_id, after, before, batch)
    if not rows:
        return 0, None
    ids = [row["id"] for row in rows]
    return len(await change_named(connection, change, ids)), ids[-1]


async def release_next(
    connection: Connection, tenant_id: UUID | None, after: UUID, before: UUID, batch: int
) -> tuple[int, UUID | None]:
    """Release some; returns how many messages, and after which one to go on (None: that was all)."""
    until = await connection.fetchval(QUERIES["held_until"], after, before, batch)
    if until is None:
        return 0, None
    async with connection.transaction():
        rows = await connection.fetch(QUERIES["release_held"], after, until, tenant_id)
        return len(await tell_of(connection, Event.RELEASED, rows)), until


async def tell_of(connection: Connection, event: Event, rows: Sequence[asyncpg.Record]) -> list[UUID]:
    """Write events for these deliveries, for who wants them; returns their messages, each once."""
    changed = list(dict.fromkeys(row["envelope_id"] for row in rows))
    if changed:
        places = sorted((row["envelope_id"], row["recipient_number"]) for row in rows)
        ids, numbers = [place[0] for place in places], [place[1] for place in places]
        await connection.execute(QUERIES["tell_changes"], ids, numbers, event.value, ids[0], ids[-1])
    return changed
