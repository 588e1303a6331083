"""The worker over fakes: one way in, every way out, and what it does when a room below is away."""

from __future__ import annotations

import asyncio
import logging

import pytest
from fix_worker import House, eventually

from smtp_proxy.errors import SchemaBusy, StoreError, StoreUnavailable, StreamUnavailable
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.envelope import DeliveryState, Job
from smtp_proxy.stream.interface import Entry


async def test_accepted_mail_is_delivered_recorded_and_acknowledged(house: House) -> None:
    house.start()
    ids = await house.accept(50)
    await house.all_are(ids, DeliveryState.DELIVERED)
    assert sorted(job.envelope.id for job in house.transport.jobs) == sorted(ids)
    await eventually(lambda: _acknowledged(house))


async def test_no_more_than_worker_concurrency_at_once(house: House) -> None:
    house.start()
    await house.all_are(await house.accept(40), DeliveryState.DELIVERED)
    assert house.transport.most_at_once <= 4


async def test_a_slow_delivery_blocks_no_other(house: House) -> None:
    stuck = asyncio.Event()
    slow = (await house.accept(1))[0]

    async def answer(job: Job) -> Outcome:
        if job.envelope.id == slow:
            await stuck.wait()
        return Outcome.DELIVERED

    house.transport.answer = answer
    house.start()
    await house.all_are(await house.accept(300), DeliveryState.DELIVERED)
    assert await house.states(slow) == [DeliveryState.SENDING]
    stuck.set()
    await house.all_are([slow], DeliveryState.DELIVERED)


async def test_what_goes_on_for_long_is_worth_protecting(house: House) -> None:
    """REQ-INFRA-SCALE-010; what is done within the stop time-out is not."""
    stuck = asyncio.Event()

    async def answer(_job: Job) -> Outcome:
        await stuck.wait()
        return Outcome.DELIVERED

    house.transport.answer = answer
    house.start()
    ids = await house.accept(1)
    await asyncio.sleep(2)
    assert house.transport.at_once == 1
    assert not house.worker.is_long_at_it()
    await asyncio.sleep(4)
    assert house.worker.is_long_at_it()
    stuck.set()
    await house.all_are(ids, DeliveryState.DELIVERED)
    assert not house.worker.is_long_at_it()


async def test_a_doubled_entry_delivers_once(house: House) -> None:
    ids = await house.accept(10)
    await house.publisher.publish(ids + ids)
    house.start()
    await house.all_are(ids, DeliveryState.DELIVERED)
    await eventually(lambda: _acknowledged(house))
    assert len(house.transport.jobs) == 10


async def test_an_entry_without_rows_is_acknowledged(house: House) -> None:
    house.start()
    await house.publisher.publish([(await house.accept(1))[0]] * 3)
    await eventually(lambda: _acknowledged(house))


async def test_deferred_mail_waits_and_refused_mail_is_over(house: House) -> None:
    async def answer(job: Job) -> Outcome:
        return Outcome.DEFERRED if job.envelope.id == deferred else Outcome.REFUSED

    deferred, refused = await house.accept(2)
    house.transport.answer = answer
    house.start()
    await house.all_are([refused], DeliveryState.REFUSED)

    async def recorded() -> bool:
        return bool((await house.store.message(deferred)).deliveries[0].attempts)

    await eventually(recorded)
    delivery = (await house.store.message(deferred)).deliveries[0]
    assert delivery.state is DeliveryState.QUEUED
    wait = delivery.next_attempt_at - delivery.attempts[0].finished_at
    assert wait.total_seconds() == house.settings.retry_initial_seconds
    assert delivery.attempts[0].reply_code == 451


async def test_a_retry_that_is_due_is_swept_and_delivered() -> None:
    house = House(retry_initial_seconds=0.1)
    tries = 0

    async def answer(_job: Job) -> Outcome:
        nonlocal tries
        tries += 1
        return Outcome.DEFERRED if tries < 3 else Outcome.DELIVERED

    house.transport.answer = answer
    house.start(sweeping=True)
    ids = await house.accept(1)
    await house.all_are(ids, DeliveryState.DELIVERED)
    attempts = (await house.store.message(ids[0])).deliveries[0].attempts
    assert [attempt.number for attempt in attempts] == [1, 2, 3]
    await house.end()


async def test_a_crash_in_the_transport_defers(house: House) -> None:
    async def answer(_job: Job) -> Outcome:
        raise RuntimeError("a bug")

    house.transport.answer = answer
    ids = await house.accept(1, "a@x.example", "b@x.example")
    house.start()

    async def recorded() -> bool:
        return all(d.attempts for d in (await house.store.message(ids[0])).deliveries)

    await eventually(recorded)
    assert await house.states(ids[0]) == [DeliveryState.QUEUED] * 2
    assert house.lifecycle.ready


async def test_what_was_sent_before_a_crash_is_unknown(house: House) -> None:
    """It was once tried again as if it had not been sent, whatever its tenant's policy."""

    async def answer(_job: Job) -> Outcome:
        raise RuntimeError("a bug")

    house.transport.sends, house.transport.answer = (0,), answer
    ids = await house.accept(1, "a@x.example", "b@x.example")
    house.start()

    async def recorded() -> bool:
        deliveries = (await house.store.message(ids[0])).deliveries
        return all(d.attempts and d.attempts[0].finished_at for d in deliveries)

    await eventually(recorded)
    outcomes = [d.attempts[0].outcome for d in (await house.store.message(ids[0])).deliveries]
    assert outcomes == [Outcome.UNKNOWN, Outcome.DEFERRED]


async def _refused(_job: Job) -> Outcome:
    return Outcome.REFUSED


async def test_a_crash_in_what_follows_an_attempt_leaves_it_recorded(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It once kept the message claimed for ever, with nobody at work on it."""

    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(house.worker._aftermath, "of", crash)
    house.transport.answer = _refused
    ids = await house.accept(2)
    house.start()
    await house.all_are(ids, DeliveryState.REFUSED)
    assert house.worker._held == {}
    assert house.lifecycle.ready


async def test_a_crash_before_an_attempt_is_recorded_gives_it_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished, crashes = house.worker._finished, [True, True]

    def crash(*arguments: object, **named: object) -> object:
        if crashes and crashes.pop():
            raise RuntimeError("a bug")
        return finished(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(house.worker, "_finished", crash)
    ids = await house.accept(1)
    house.start(sweeping=True)
    await house.all_are(ids, DeliveryState.DELIVERED)
    assert house.worker._held == {}
    assert len(house.transport.jobs) == 2


async def test_mail_that_was_never_published_is_swept(house: House) -> None:
    house.start(sweeping=True)
    await house.all_are(await house.accept(30, publish=False), DeliveryState.DELIVERED)


async def test_no_sweep_waits_for_partitions(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long report reads what they are made from: once a day nothing was swept until it ended."""
    tried = []

    async def busy(*_: object) -> list[str]:
        tried.append(1)
        raise SchemaBusy

    monkeypatch.setattr(house.store, "ensure_partitions", busy)
    house.start(sweeping=True)
    await house.all_are(await house.accept(30, publish=False), DeliveryState.DELIVERED)
    await asyncio.sleep(90)
    assert 1 < len(tried) < 4, "again after a minute, and not at each round"


@pytest.mark.parametrize("trouble", [StoreError("42501"), StoreUnavailable("57014")])
@pytest.mark.parametrize("what", ["ensure_partitions", "forget_submission_keys", "backlog_age_seconds"])
async def test_mail_that_is_due_does_not_fail_with_the_upkeep(
    house: House, monkeypatch: pytest.MonkeyPatch, what: str, trouble: Exception
) -> None:
    """A right that was missing, or a statement that took too long, once kept every retry waiting for ever."""

    async def fail(*_: object) -> None:
        raise trouble

    monkeypatch.setattr(house.store, what, fail)
    house.start(sweeping=True)
    await house.all_are(await house.accept(30, publish=False), DeliveryState.DELIVERED)
    house.server.available = False
    await house.all_are(await house.accept(30, publish=False), DeliveryState.DELIVERED)
    assert house.lifecycle.ready


async def test_many_expired_keys_do_not_keep_mail_waiting(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them once went before anything was swept again."""
    batches = []

    async def never_ends() -> int:
        batches.append(1)
        await asyncio.sleep(1.0)
        return 10_000

    monkeypatch.setattr(house.store, "forget_submission_keys", never_ends)
    house.start(sweeping=True)
    await house.all_are(await house.accept(30, publish=False), DeliveryState.DELIVERED)
    seen = len(batches)
    await asyncio.sleep(30)
    assert len(batches) > seen, "and goes on by and by"


async def test_mail_flows_without_redis_and_with_it_again(house: House) -> None:
    house.start(sweeping=True)
    house.server.available = False
    await house.all_are(await house.accept(30, publish=False), DeliveryState.DELIVERED)
    house.server.available = True
    await house.all_are(await house.accept(30), DeliveryState.DELIVERED, seconds=8)


async def test_a_part_of_the_stream_that_is_away_keeps_nothing_waiting(house: House) -> None:
    """What lies there comes from Postgres, and the rest of the stream is read in turns with that."""
    house.consumer.is_whole = False
    house.start()
    lost = await house.accept(600, publish=False)
    await asyncio.sleep(house.settings.sweep_after_seconds)
    new = await house.accept(10)
    await house.all_are(new, DeliveryState.DELIVERED, seconds=0.5)
    await house.all_are(lost, DeliveryState.DELIVERED)
    for _ in range(5):
        await asyncio.sleep(0.7)
        await house.all_are(await house.accept(1), DeliveryState.DELIVERED, seconds=0.1)


async def test_a_part_of_the_stream_that_is_away_is_told_of_once(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.start()
    with caplog.at_level(logging.WARNING):
        for is_whole in (False, True):
            house.consumer.is_whole = is_whole
            await asyncio.sleep(5)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["the stream is away in part: polling Postgres beside it", "the stream is whole again"]


@pytest.mark.parametrize("what", ["done", "reclaim"])
async def test_one_shard_that_fails_at_something_else_does_not_stop_the_reading(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """For two seconds each time all new mail once waited for what Postgres says is due."""
    house = House(sweep_after_seconds=5.0)
    tried, claim = [], house.store.claim

    async def fail(*_: object, **__: object) -> list[Entry]:
        tried.append(1)
        raise StreamUnavailable

    async def slow(*arguments: object) -> list[Job]:
        await asyncio.sleep(0.05)
        return await claim(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(house.consumer, what, fail)
    monkeypatch.setattr(house.store, "claim", slow)
    house.start()
    async with asyncio.TaskGroup() as waiting:
        for _ in range(150):
            waiting.create_task(house.all_are(await house.accept(1), DeliveryState.DELIVERED, seconds=0.5))
            await asyncio.sleep(0.03)
    assert tried
    await house.end()


async def test_an_emptied_redis_loses_nothing(house: House) -> None:
    ids = await house.accept(30)
    house.server.flush()
    house.start(sweeping=True)
    await house.all_are(ids, DeliveryState.DELIVERED)
    assert len(house.transport.jobs) == 30


async def test_outcomes_wait_for_postgres_and_nothing_is_sent_twice(house: House) -> None:
    async def answer(_job: Job) -> Outcome:
        house.store.down = True
        return Outcome.DELIVERED

    ids = await house.accept(4)
    house.transport.answer = answer
    house.start(sweeping=True)
    await eventually(lambda: _true(len(house.transport.jobs) == 4))
    await asyncio.sleep(0.3)
    house.store.down = False
    await house.all_are(ids, DeliveryState.DELIVERED)
    assert len(house.transport.jobs) == 4


async def test_postgres_away_while_mail_comes(house: House) -> None:
    ids = await house.accept(20)
    house.store.down = True
    house.start(sweeping=True)
    await asyncio.sleep(0.2)
    assert not house.transport.jobs
    house.store.down = False
    await house.all_are(ids, DeliveryState.DELIVERED)
    assert len(house.transport.jobs) == 20


async def test_the_lease_of_a_long_delivery_is_renewed() -> None:
    house = House(worker_lease_seconds=3.0)

    async def answer(_job: Job) -> Outcome:
        await asyncio.sleep(60)
        return Outcome.DELIVERED

    house.transport.answer = answer
    house.start(sweeping=True)
    ids = await house.accept(1)
    await house.all_are(ids, DeliveryState.DELIVERED, seconds=65)
    assert len(house.transport.jobs) == 1
    await house.end()


async def test_shutdown_finishes_what_is_under_way_and_gives_back_the_rest(house: House) -> None:
    going = asyncio.Event()

    async def answer(_job: Job) -> Outcome:
        going.set()
        await asyncio.sleep(0.2)
        return Outcome.DELIVERED

    house.transport.answer = answer
    ids = await house.accept(30)
    house.start()
    await going.wait()
    assert await house.stop()
    states = [(await house.states(i))[0] for i in ids]
    assert states.count(DeliveryState.DELIVERED) == len(house.transport.jobs) <= 8
    assert states.count(DeliveryState.SENDING) == 0
    assert states.count(DeliveryState.QUEUED) == 30 - len(house.transport.jobs)
    given_back = {envelope_id for _, envelope_id in house.server.unread}
    assert {i for i, state in zip(ids, states, strict=True) if state is DeliveryState.QUEUED} <= given_back
    assert not house.server.pending


async def test_shutdown_does_not_wait_for_ever(house: House) -> None:
    async def answer(_job: Job) -> Outcome:
        await asyncio.sleep(3600)
        return Outcome.DELIVERED

    house.transport.answer = answer
    ids = await house.accept(2)
    house.start()
    await eventually(lambda: _true(len(house.transport.jobs) == 2))
    assert not await house.stop()
    assert [(await house.states(i))[0] for i in ids] == [DeliveryState.QUEUED] * 2


async def _true(value: bool) -> bool:
    return value


async def _acknowledged(house: House) -> bool:
    return not house.server.pending and not house.server.unread
