"""Counts what is held, for the limit on it (`tenants.held`) and the metrics: now and then, never for a message.

One count reads as many index entries and envelopes as there are messages held. The pause after it is at least twenty
times what it took, so that it is never more than a twentieth of anybody's work.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from smtp_proxy.errors import StoreError
from smtp_proxy.telemetry.metrics import HELD_BYTES, HELD_MESSAGES

if TYPE_CHECKING:
    from uuid import UUID

    from smtp_proxy.clock import Clock
    from smtp_proxy.model.limits import Held
    from smtp_proxy.tenants.held import HeldRoom
    from smtp_proxy.tenants.limits import TenantLimiter

log = logging.getLogger(__name__)

# While some tenant's mail may be held, and otherwise.
_EVERY_SECONDS: Final = (5.0, 60.0)
_PAUSE_FACTOR: Final = 20.0


class HeldStore(Protocol):
    """The part of `store.Store` that counts. May raise StoreError."""

    async def held_by_tenant(self) -> dict[UUID, Held]: ...


class HeldWatch:
    """One per service."""

    def __init__(self, store: HeldStore, room: HeldRoom, limiter: TenantLimiter, *, clock: Clock) -> None:
        self._store = store
        self._room = room
        self._limiter = limiter
        self._clock = clock

    async def run(self) -> None:
        """Count again and again; for ever."""
        while True:
            pause = await self.look()
            await asyncio.sleep(pause)

    async def look(self) -> float:
        """Count once; returns in how many seconds to count again."""
        began = self._clock.monotonic()
        every = _EVERY_SECONDS[0] if self._limiter.may_hold else _EVERY_SECONDS[1]
        self._room.begin_count()
        try:
            held = await self._store.held_by_tenant()
        except StoreError as error:
            log.warning("held mail is not counted: %s", error, extra={"action": "held_uncounted"})
        else:
            self._room.end_count({tenant_id.bytes: count for tenant_id, count in held.items()})
            HELD_MESSAGES.set(sum(count.messages for count in held.values()))
            HELD_BYTES.set(sum(count.size_bytes for count in held.values()))
        return max(every, (self._clock.monotonic() - began) * _PAUSE_FACTOR)
