"""The core hears whose mail goes in which lane, and again when that changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from ingress_fakes import settle, unavailable

from smtp_proxy.ingress.lanes import LaneDesk
from smtp_proxy.model.lane import Lane

TENANT, CREDENTIAL = UUID(int=1), UUID(int=2)


class House:
    """A desk, its store, and what the core was told."""

    def __init__(self) -> None:
        self.found = {TENANT: Lane.BULK}
        self.error: Exception | None = None
        self.told: list[dict[bytes, int]] = []
        self.desk = LaneDesk(self, self)

    async def lanes(self) -> dict[UUID, Lane]:
        if self.error is not None:
            raise self.error
        return self.found

    def set_lanes(self, lanes: Sequence[tuple[bytes, int]]) -> None:
        self.told.append(dict(lanes))


async def test_the_core_hears_of_changes_and_keeps_what_it_knows_without_the_store() -> None:
    house = House()
    running = asyncio.create_task(house.desk.run())
    await settle()
    assert house.told == [{TENANT.bytes: 1}]
    house.error = unavailable()
    house.desk.changed()
    await settle()
    assert len(house.told) == 1
    house.error, house.found = None, {TENANT: Lane.BULK, CREDENTIAL: Lane.TRANSACTIONAL}
    await asyncio.sleep(1.1)  # it asks again by itself
    assert house.told[1:] == [{TENANT.bytes: 1, CREDENTIAL.bytes: 0}]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
