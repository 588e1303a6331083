"""Queued and held mail that an operator sends another way: a part of `Store`.

The route is a column of the delivery, which the claim reads; what the routes file says stays, and counts again once it
is null.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from smtp_proxy.model.mailbox import domain_key
from smtp_proxy.model.webhook import Event
from smtp_proxy.store.held import FIRST, tell_of
from smtp_proxy.store.ids import first_id
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from smtp_proxy.clock import Clock
    from smtp_proxy.model.change import Reroute
    from smtp_proxy.store.pool import Connection


class Reroutes:
    """A part of `Store`, which brings the connections."""

    _clock: Clock

    def _connection(self, doing: str) -> AbstractAsyncContextManager[Connection]:
        raise NotImplementedError

    async def reroute(self, reroute: Reroute, envelope_ids: Sequence[UUID]) -> list[UUID]:
        """Send what these messages have queued or held another way; returns those that had any such delivery.

        What is deferred is due now. What a worker has in hand is left alone: it goes the old way, and should it be
        deferred, has to be rerouted again.
        """
        if not envelope_ids:
            return []
        async with self._connection("rerouting mail") as connection:
            return await _reroute(connection, reroute, envelope_ids)

    async def reroute_all(self, reroute: Reroute, tenant_id: UUID, *, batch: int = 1000) -> AsyncIterator[int]:
        """As `reroute`, for all that a tenant has now, oldest first; yields how many messages each time.

        Each batch is a transaction of its own and looks at so many messages; what was rerouted stays so.
        """
        after: UUID | None = FIRST
        before = first_id(self._clock.now() + timedelta(minutes=1))
        while after is not None:
            async with self._connection("rerouting mail") as connection:
                rows = await connection.fetch(QUERIES["messages_of_tenant"], tenant_id, after, before, batch)
                ids = [row["id"] for row in rows]
                rerouted = await _reroute(connection, reroute, ids) if ids else []
            after = ids[-1] if ids else None
            yield len(rerouted)


async def _reroute(connection: Connection, reroute: Reroute, envelope_ids: Sequence[UUID]) -> list[UUID]:
    ids = (list(envelope_ids), min(envelope_ids), max(envelope_ids))
    states, only = list(reroute.states), None
    async with connection.transaction():
        if reroute.domains:
            wanted = set(map(domain_key, reroute.domains))
            waiting = await connection.fetch(QUERIES["waiting_recipients"], *ids, states)
            only = [row["recipient"] for row in waiting if domain_key(row["recipient"]) in wanted]
        rows = await connection.fetch(QUERIES["reroute"], *ids, reroute.route, states, reroute.deferred_alone, only)
        return await tell_of(connection, Event.REROUTED, rows)
