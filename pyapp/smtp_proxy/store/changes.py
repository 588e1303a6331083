"""What an operator changes about mail that waits, and what is held: a part of `Store`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from smtp_proxy.model.change import Change
from smtp_proxy.model.limits import Held
from smtp_proxy.store import held
from smtp_proxy.store.ids import first_id
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings
    from smtp_proxy.store.pool import Connection


class Changes:
    """A part of `Store`, which brings the connections."""

    _settings: Settings
    _clock: Clock

    def _connection(self, doing: str) -> AbstractAsyncContextManager[Connection]:
        raise NotImplementedError

    async def release_held(self, envelope_ids: Sequence[UUID]) -> list[UUID]:
        """Make the held deliveries of these messages due; returns whose there were."""
        async with self._connection("releasing held mail") as connection:
            return await held.change_named(connection, Change.RELEASE, envelope_ids)

    async def release_all_held(self, tenant_id: UUID | None = None, *, batch: int = 1000) -> AsyncIterator[int]:
        """Make all that is held now due, of a tenant or of all, oldest first; yields how many messages each time.

        Each batch is a transaction of its own, and looks at some `batch` deliveries; what was released stays so.
        """
        # Ids of other processes may be a little ahead. What is held from now on is not waited for.
        after: UUID | None = held.FIRST
        before = first_id(self._clock.now() + timedelta(minutes=1))
        while after is not None:
            async with self._connection("releasing held mail") as connection:
                released, after = await held.release_next(connection, tenant_id, after, before, batch)
            yield released

    async def change(self, change: Change, envelope_ids: Sequence[UUID]) -> list[UUID]:
        """Hold, release or cancel what these messages have undelivered; returns those that had any such delivery.

        Webhooks are told of it, in the same transaction.
        """
        async with self._connection(f"changing mail: {change.value}") as connection:
            return await held.change_named(connection, change, envelope_ids)

    async def change_all(self, change: Change, tenant_id: UUID, *, batch: int = 1000) -> AsyncIterator[int]:
        """As `change`, for all that a tenant has now, oldest first; yields how many messages each time.

        Each batch is a transaction of its own and looks at so many messages; what was changed stays so.
        """
        after: UUID | None = held.FIRST
        before = first_id(self._clock.now() + timedelta(minutes=1))
        while after is not None:
            async with self._connection(f"changing mail: {change.value}") as connection:
                changed, after = await held.change_next(connection, change, tenant_id, after, before, batch)
            yield changed

    async def in_hand(self, *, tenant_id: UUID | None = None, envelope_ids: Sequence[UUID] | None = None) -> int:
        """How many messages, of a tenant or of these, a worker has in hand; `change` leaves them as they are."""
        ids = list(envelope_ids) if envelope_ids is not None else None
        longest = timedelta(seconds=self._settings.worker_lease_seconds)
        async with self._connection("counting what is under way") as connection:
            return int(await connection.fetchval(QUERIES["in_hand"], longest, tenant_id, ids))

    async def held_by_tenant(self) -> dict[UUID, Held]:
        """How much is held, of each tenant that has any. Reads all that is held: not for every message."""
        async with self._connection("counting held mail") as connection:
            rows = await connection.fetch(QUERIES["held_by_tenant"])
        return {row["tenant_id"]: Held(row["messages"], row["bytes"]) for row in rows}
