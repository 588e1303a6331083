"""Turns are for what makes progress: lent while waiting, lent when held for long, given back by whoever waited."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from fix_worker import House, eventually

from smtp_proxy.delivery.transport import Ledger
from smtp_proxy.delivery.turn import Turn
from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult
from smtp_proxy.model.envelope import DeliveryState, Job
from smtp_proxy.worker.hand import SLOW_SECONDS


async def test_deliveries_that_stand_use_up_no_turns(house: House) -> None:
    never = asyncio.Event()
    slow = set(await house.accept(20))  # five times `worker_concurrency`

    async def answer(job: Job) -> Outcome:
        if job.envelope.id in slow:
            await never.wait()
        return Outcome.DELIVERED

    house.transport.answer = answer
    house.start()
    fast = await house.accept(100)
    await house.all_are(fast, DeliveryState.DELIVERED, seconds=(20 / 4 + 2) * SLOW_SECONDS * 2)
    assert house.worker.hand.lent == 20
    never.set()
    await house.all_are(list(slow), DeliveryState.DELIVERED)
    assert (house.worker.hand.lent, house.worker.hand.under_way) == (0, 0)


class Waiting:
    """Lends its turn for a moment with every job, and counts who works."""

    def __init__(self) -> None:
        self.working = self.most_working = self.waiting = self.most_waiting = 0

    async def deliver(self, job: Job, ledger: Ledger, turn: Turn) -> list[RecipientResult]:
        assert turn.lend(0.1)
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        await asyncio.sleep(0.1)
        self.waiting -= 1
        await turn.regain()
        self.working += 1
        self.most_working = max(self.most_working, self.working)
        await asyncio.sleep(0.01)
        self.working -= 1
        return [RecipientResult(r.number, Outcome.DELIVERED, 250, "", "", "mx:25") for r in job.recipients]

    async def close(self) -> None:
        pass


async def test_who_waits_holds_no_turn_and_who_works_holds_one(house: House) -> None:
    transport = house.worker._transport = Waiting()
    house.start()
    await house.all_are(await house.accept(100), DeliveryState.DELIVERED)
    assert transport.most_working == 4
    assert transport.most_waiting > 4
    hand = house.worker.hand
    assert (hand.lent, hand.soon, hand.under_way) == (0, 0, 0)


class Busy:
    """Sends back whatever it is given, so many times."""

    def __init__(self, times: int) -> None:
        self.times = times

    async def deliver(self, job: Job, ledger: Ledger, turn: Turn) -> list[RecipientResult]:
        self.times -= 1
        if self.times < 0:
            return [RecipientResult(r.number, Outcome.DELIVERED, 250, "", "", "mx:25") for r in job.recipients]
        return [
            RecipientResult(r.number, Outcome.DEFERRED, 0, "", "busy", "mx:25", Kind.LOCAL, postponed_seconds=7.0)
            for r in job.recipients
        ]

    async def close(self) -> None:
        pass


async def test_postponed_mail_goes_back_without_an_attempt_and_comes_again(house: House) -> None:
    house.worker._transport = Busy(3)
    house.start(sweeping=True)
    began = asyncio.get_running_loop().time()
    (envelope_id,) = await house.accept(1)
    await eventually(lambda: _waits(house, envelope_id))
    (delivery,) = (await house.store.message(envelope_id)).deliveries
    assert delivery.waits_for == "mx:25: busy", "which `explain` says"
    await house.all_are([envelope_id], DeliveryState.DELIVERED, seconds=40)
    assert asyncio.get_running_loop().time() - began >= 21
    (delivery,) = (await house.store.message(envelope_id)).deliveries
    assert [attempt.number for attempt in delivery.attempts] == [1]


@pytest.mark.parametrize(
    ("times", "ended", "seconds"), [(4, DeliveryState.DELIVERED, 28), (10_000, DeliveryState.REFUSED, 42)]
)
async def test_mail_as_old_as_may_be_is_offered_before_it_is_given_up(
    times: int, ended: DeliveryState, seconds: float
) -> None:
    """Postponed by a busy next hop when it had reached its age, it was once bounced; and it must not stay for ever."""
    house = House(retry_give_up_seconds=20.0)
    house.worker._transport = Busy(times)
    house.start(sweeping=True)
    began = asyncio.get_running_loop().time()
    (envelope_id,) = await house.accept(1)
    await house.all_are([envelope_id], ended, seconds=100)
    assert seconds - 0.1 <= asyncio.get_running_loop().time() - began <= seconds + 2
    await house.end()


async def _waits(house: House, envelope_id: UUID) -> bool:
    return (await house.store.message(envelope_id)).deliveries[0].waits_for is not None


async def test_broken_off_in_a_wait_nothing_is_lost(house: House) -> None:
    house.worker._transport = Waiting()
    house.start()
    ids = await house.accept(30)
    await asyncio.sleep(0.05)
    await house.worker.close()
    await house.worker.leave()
    assert {state for i in ids for state in await house.states(i)} == {DeliveryState.QUEUED}
