"""What a worker believes to hold, and when it has that renewed, over a store that leaves some of it alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest
from mail import core_envelope
from virtual_time import LoopClock

from smtp_proxy.clock import Clock
from smtp_proxy.model.envelope import Job
from smtp_proxy.model.lane import Lane
from smtp_proxy.store.memory import MemoryStore
from smtp_proxy.telemetry.tasks import end
from smtp_proxy.worker.lease import Claim, Leases

SECONDS = 30.0
ROUND = SECONDS / 3


class Store(MemoryStore):
    """Others hold rows of `locked`; `asked` is what was to be renewed, and when."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.locked: set[UUID] = set()
        self.asked: list[tuple[float, set[UUID]]] = []
        self.claims_take = 0.0

    async def claim(self, *arguments: object, **options: object) -> list[Job]:  # type: ignore[override]
        jobs = await super().claim(*arguments, **options)  # type: ignore[arg-type]
        await asyncio.sleep(self.claims_take)
        return jobs

    async def renew(self, envelope_ids: Sequence[UUID], worker_id: UUID, lease_seconds: float) -> dict[UUID, bool]:
        self.asked.append((self._clock.monotonic(), set(envelope_ids)))
        free = [i for i in envelope_ids if i not in self.locked]
        held = {row.envelope_id for row in self._held(worker_id)}
        return await super().renew(free, worker_id, lease_seconds) | dict.fromkeys(held & self.locked, False)


class Desk:
    """Leases that are renewed, and some mail."""

    def __init__(self) -> None:
        self.clock = LoopClock()
        self.store = Store(self.clock)
        self.given_back: list[UUID] = []
        self.leases = Leases(self.store, SECONDS, self.clock, self._give_back)
        self._renewing = asyncio.create_task(self.leases.run())

    async def _give_back(self, released: dict[UUID, Lane]) -> None:
        self.given_back += released

    async def claim(self, count: int) -> list[Claim]:
        batch = [core_envelope() for _ in range(count)]
        await self.store.accept(batch, sweep_after_seconds=0.2)
        claims = await self.leases.claim([UUID(bytes=row[0]) for row in batch])
        assert len(claims) == count
        return claims

    async def end(self) -> None:
        await end([self._renewing])


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    await made.end()


def ids_of(*claims: Claim) -> set[UUID]:
    return {claim.job.envelope.id for claim in claims}


async def test_what_is_in_hand_is_renewed_every_third_of_the_lease(desk: Desk) -> None:
    kept, settled = await desk.claim(2)
    desk.leases.settle(settled)
    await asyncio.sleep(3.5 * ROUND)
    assert [names for _, names in desk.store.asked] == [ids_of(kept)] * 3
    assert [round(at / ROUND, 3) for at, _ in desk.store.asked] == [1, 2, 3]
    assert desk.leases.holds(kept)


async def test_what_others_hold_is_tried_again_within_a_second_and_alone(desk: Desk) -> None:
    locked, other = await desk.claim(2)
    desk.store.locked = ids_of(locked)
    await asyncio.sleep(ROUND + 0.5)
    desk.store.locked = set()
    await asyncio.sleep(ROUND - 1)
    assert [names for _, names in desk.store.asked] == [ids_of(locked, other), ids_of(locked)]
    assert desk.store.asked[1][0] - desk.store.asked[0][0] <= 1
    await asyncio.sleep(ROUND)
    assert len(desk.store.asked) == 3
    assert all(map(desk.leases.holds, (locked, other)))


async def test_what_others_hold_for_long_is_not_believed_in_and_keeps_nothing_else_from_being_renewed(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    locked, other = await desk.claim(2)
    desk.store.locked = ids_of(locked)
    with caplog.at_level(logging.WARNING):
        await asyncio.sleep(1.4 * ROUND)
        assert not caplog.records, "it is held for a moment, as far as anybody knows"
        await asyncio.sleep(SECONDS)
    assert "leases of 1 messages are not renewed" in caplog.text
    assert not desk.leases.holds(locked)
    assert desk.leases.holds(other)
    assert sum(ids_of(other) <= names for _, names in desk.store.asked) == 4, "a round is a third of a lease"


async def test_what_is_recorded_while_it_is_renewed_is_not_tried_again(desk: Desk) -> None:
    (claim,) = await desk.claim(1)
    renew = desk.store.renew

    async def settled_meanwhile(*arguments: object) -> dict[UUID, bool]:
        desk.leases.settle(claim)
        await renew(*arguments)  # type: ignore[arg-type]
        return dict.fromkeys(ids_of(claim), False)

    desk.store.renew = settled_meanwhile  # type: ignore[method-assign]
    await asyncio.sleep(2.5 * ROUND)
    assert len(desk.store.asked) == 1


async def test_after_an_outage_what_was_not_renewed_is_tried_soon(desk: Desk) -> None:
    (claim,) = await desk.claim(1)
    await asyncio.sleep(ROUND - 1)
    desk.store.down = True
    await asyncio.sleep(3)
    desk.store.down = False
    await asyncio.sleep(1)
    assert desk.leases.holds(claim)
    assert claim.sure_since > ROUND + 1


async def test_a_round_that_goes_by_a_claim_under_way_is_made_up_for(desk: Desk) -> None:
    """Its rows are ours since it began, and it may be long until the next round."""
    await asyncio.sleep(1)
    desk.store.claims_take = 1.8 * ROUND
    (claim,) = await desk.claim(1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert desk.store.asked[-1][1] == ids_of(claim)
    assert desk.clock.monotonic() - claim.sure_since < 1


async def test_strays_of_a_retired_id_are_not_renewed_and_go_back_with_it(desk: Desk) -> None:
    kept, dropped = await desk.claim(2)
    desk.leases.drop(dropped)
    await asyncio.sleep(1.5 * ROUND)
    assert [names for _, names in desk.store.asked] == [ids_of(kept)]
    assert not desk.given_back
    desk.leases.settle(kept)
    await asyncio.sleep(1)
    assert ids_of(dropped) <= set(desk.given_back)
