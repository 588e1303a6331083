"""Tells the core which lane whose mail goes in, whenever the database says that tenants or credentials changed.

What a message asks for itself the core reads from its header (core_rs/proto/src/lane.rs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from smtp_proxy.ingress.refresh import Refreshed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from smtp_proxy.model.lane import Lane


class LaneStore(Protocol):
    """The part of `store.Store` that knows lanes. May raise StoreError."""

    async def lanes(self) -> dict[UUID, Lane]: ...


class LaneSetter(Protocol):
    """The core, as far as lanes go."""

    def set_lanes(self, lanes: Sequence[tuple[bytes, int]]) -> None: ...


class LaneDesk(Refreshed):
    """One per service. The core goes by what it was told last."""

    def __init__(self, core: LaneSetter, store: LaneStore) -> None:
        super().__init__("lanes", "lanes_unread")
        self._core = core
        self._store = store

    async def load(self) -> None:
        """Read once, and tell. Raises StoreError."""
        found = await self._store.lanes()
        self._core.set_lanes([(whose.bytes, int(lane)) for whose, lane in found.items()])
