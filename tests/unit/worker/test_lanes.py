"""Transactional before bulk, and bulk never starved; in the stream, in the hand, and by sweeping."""

from __future__ import annotations

import asyncio

from fix_worker import House

from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.envelope import DeliveryState, Job
from smtp_proxy.model.lane import Lane
from smtp_proxy.stream.memory import MemoryConsumer
from smtp_proxy.worker.hand import Room


async def _slowly(_job: Job) -> Outcome:
    await asyncio.sleep(0.01)
    return Outcome.DELIVERED


async def test_a_transactional_message_passes_two_thousand_bulk_ones() -> None:
    house = House(worker_batch_messages=50)
    house.transport.answer = _slowly
    await house.accept(2000, lane=Lane.BULK)
    house.start()
    await asyncio.sleep(0.2)
    begun = len(house.transport.jobs)
    (urgent,) = await house.accept(1)
    await house.all_are([urgent], DeliveryState.DELIVERED)
    place = [job.envelope.id for job in house.transport.jobs].index(urgent)
    assert place - begun <= 2 * 50, "it waits for the batch in hand, not for the backlog"
    await house.worker.leave()


async def test_bulk_gets_its_share_of_a_flood() -> None:
    house = House(worker_batch_messages=50)
    house.transport.answer = _slowly
    await house.accept(600, lane=Lane.BULK)
    await house.accept(600)
    house.start()
    while len(house.transport.jobs) < 500:
        await asyncio.sleep(0.01)
    lanes = [job.lane for job in house.transport.jobs[100:500]]
    assert 0.1 < lanes.count(Lane.BULK) / len(lanes) < 0.4
    await house.worker.leave()


async def test_the_sweeper_fills_both_lanes_past_a_backlog() -> None:
    house = House()
    await house.accept(1000, publish=False, lane=Lane.BULK)
    await house.accept(3, publish=False)
    await asyncio.sleep(house.settings.sweep_after_seconds)
    assert await house.sweeper.sweep(), "more bulk is due than the stream is given"
    lanes = house.server.lanes
    assert len(lanes[Lane.TRANSACTIONAL].unread) == 3
    assert 0 < len(lanes[Lane.BULK].unread) < 1000


async def test_without_the_stream_the_lanes_are_kept() -> None:
    house = House(worker_batch_messages=50)
    house.server.available = False
    house.transport.answer = _slowly
    await house.accept(1000, publish=False, lane=Lane.BULK)
    urgent = await house.accept(20, publish=False)
    await asyncio.sleep(house.settings.sweep_after_seconds)
    house.start()
    await house.all_are(urgent, DeliveryState.DELIVERED)
    assert len(house.transport.jobs) < 300
    await house.worker.leave()


async def test_bulk_that_is_offered_waits_for_room_as_other_bulk_does() -> None:
    """What was swept and could not be published, or was left by a worker that died."""
    house = House()
    bulk, urgent = await house.accept(3, publish=False, lane=Lane.BULK), await house.accept(2, publish=False)
    house.worker.intake.offer(bulk, Lane.BULK)
    house.worker.intake.offer(urgent, Lane.TRANSACTIONAL)
    assert await house.worker.intake._next(Room(10, bulk=False)) == ([], urgent)
    assert await house.worker.intake._next(Room(10, bulk=True)) == ([], bulk)
    house.worker.intake.offer(bulk, Lane.BULK)
    house.worker.intake.offer(bulk, Lane.BULK)
    house.worker.intake.offer(await house.accept(20, publish=False), Lane.TRANSACTIONAL)
    _, some = await house.worker.intake._next(Room(10, bulk=True))
    assert len(set(some) & set(bulk)) == 2, "bulk has its share, and what is offered again waits once"
    assert len(some) == 10
    dead = MemoryConsumer(house.server, "dead")
    await house.publisher.publish(bulk, Lane.BULK)
    assert len(await dead.read(10, 1)) == 3
    assert await house.consumer.reclaim(0.0, bulk=False) == []
    assert len(await house.consumer.reclaim(0.0)) == 3


async def test_what_is_given_back_goes_to_its_lane() -> None:
    house = House()
    ids = {lane: await house.accept(2, publish=False, lane=lane) for lane in Lane}
    everything = [envelope_id for some in ids.values() for envelope_id in some]
    assert len(await house.worker.leases.claim(everything)) == 4
    await house.worker.leases.release_all()
    for lane, some in ids.items():
        assert sorted(i for _, i in house.server.lanes[lane].unread) == sorted(some)


async def _delivers_past_bulk_that_stands(house: House, *, publish: bool) -> None:
    never = asyncio.Event()

    async def answer(job: Job) -> Outcome:
        if job.lane is Lane.BULK:
            await never.wait()
        return Outcome.DELIVERED

    house.transport.answer = answer
    await house.accept(1000, publish=publish, lane=Lane.BULK)
    house.start()
    hand = house.worker.hand
    while hand.lent < 192 or hand.under_way < 3:  # three quarters of what may be lent, and all turns but one
        await asyncio.sleep(0.1)
    await asyncio.sleep(5)
    assert (hand.lent, hand.under_way) == (192, 3)
    for _ in range(3):
        urgent = await house.accept(100, publish=publish)
        await house.all_are(urgent, DeliveryState.DELIVERED, seconds=5)
    never.set()
    await house.worker.leave()


async def test_bulk_that_stands_everywhere_leaves_turns_to_transactional_mail() -> None:
    """A newsletter to a thousand servers that do not answer."""
    await _delivers_past_bulk_that_stands(House(), publish=True)


async def test_and_so_it_does_without_the_stream() -> None:
    house = House()
    house.server.available = False
    await _delivers_past_bulk_that_stands(house, publish=False)


async def test_bulk_that_stood_goes_on() -> None:
    """What was left out of reading meanwhile is read again."""
    house, slow = House(), asyncio.Event()

    async def answer(_: Job) -> Outcome:
        await slow.wait()
        return Outcome.DELIVERED

    house.transport.answer = answer
    bulk = await house.accept(600, lane=Lane.BULK)
    house.start()
    await asyncio.sleep(60)
    slow.set()
    await house.all_are(bulk, DeliveryState.DELIVERED)
    assert (house.worker.hand.lent, house.worker.hand.under_way) == (0, 0)
    await house.worker.leave()
