"""Tells the core which lane whose mail goes in, whenever the database says that tenants or credentials changed.

What a message asks for itself the core reads from its header (core_rs/proto/src/lane.rs).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from smtp_proxy.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from smtp_proxy.model.lane import Lane

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 1.0


class LaneStore(Protocol):
    """The part of `store.Store` that knows lanes. May raise StoreError."""

    async def lanes(self) -> dict[UUID, Lane]: ...


class LaneSetter(Protocol):
    """The core, as far as lanes go."""

    def set_lanes(self, lanes: Sequence[tuple[bytes, int]]) -> None: ...


class LaneDesk:
    """One per service."""

    def __init__(self, core: LaneSetter, store: LaneStore) -> None:
        self._core = core
        self._store = store
        self._changed = asyncio.Event()
        self._changed.set()

    def changed(self) -> None:
        """Tenants or credentials may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Keep the core up to date; for ever. What it was told stays while the store is away."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.load()
            except StoreError as error:
                log.warning("lanes can not be read: %s", error, extra={"action": "lanes_unread"})
                self._changed.set()
                await asyncio.sleep(_AGAIN_SECONDS)

    async def load(self) -> None:
        """Read once, and tell. Raises StoreError."""
        found = await self._store.lanes()
        self._core.set_lanes([(whose.bytes, int(lane)) for whose, lane in found.items()])
