"""Telling the stream behind the clients' backs: never in their way, never without bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from ingress_fakes import FakePublisher, settle
from stream_suite import envelope_id

from smtp_proxy.errors import StreamUnavailable
from smtp_proxy.ingress.announce import Announcer
from smtp_proxy.model.lane import Lane
from smtp_proxy.telemetry.metrics import REGISTRY


class House:
    """An announcer at work that keeps at most five ids waiting."""

    def __init__(self, gather_seconds: float = 0) -> None:
        self.publisher = FakePublisher()
        self.announcer = Announcer(self.publisher, waiting_ids=5, gather_seconds=gather_seconds)
        self.running = asyncio.create_task(self.announcer.run())

    def announce(self, count: int) -> list[UUID]:
        ids = [envelope_id() for _ in range(count)]
        self.announcer.announce([each.bytes for each in ids])
        return ids

    async def hold_up(self) -> list[UUID]:
        """The stream takes what is announced now and does not answer."""
        self.publisher.open.clear()
        under_way = self.announce(1)
        await settle()
        assert self.publisher.calls == [under_way]
        return under_way

    async def end(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    made = House()
    await settle()
    yield made
    await made.end()


def failed() -> float:
    return REGISTRY.get_sample_value("smtp_stream_publish_failed_total") or 0.0


def published() -> float:
    return REGISTRY.get_sample_value("smtp_stream_published_total", {"source": "ingress"}) or 0.0


async def test_ids_are_published_in_order(house: House) -> None:
    before = published()
    ids = house.announce(3)
    await house.announcer.flushed()
    assert house.publisher.calls == [ids]
    assert published() - before == 3


async def test_each_lane_has_a_call_of_its_own(house: House) -> None:
    bulk = [envelope_id(), envelope_id()]
    house.announcer.announce([each.bytes for each in bulk], Lane.BULK)
    ids = house.announce(1)
    await house.announcer.flushed()
    assert list(zip(house.publisher.lanes, house.publisher.calls, strict=True)) == [
        (Lane.TRANSACTIONAL, ids),
        (Lane.BULK, bulk),
    ]


async def test_what_gathers_while_the_stream_is_slow_is_one_call(house: House) -> None:
    first = await house.hold_up()
    later = house.announce(2) + house.announce(1)
    assert house.publisher.calls == [first]
    house.publisher.open.set()
    await house.announcer.flushed()
    assert house.publisher.calls == [first, later]


async def test_after_a_pause_at_once_and_in_a_stream_together() -> None:
    house = House(gather_seconds=3600)
    first = house.announce(1)
    await settle()
    later = house.announce(1) + house.announce(1)
    await settle()
    assert house.publisher.calls == [first]
    await house.end()
    assert [UUID(bytes=raw) for raw in house.announcer._ids[Lane.TRANSACTIONAL]] == later


async def test_what_does_not_fit_is_left_to_the_sweeper(house: House) -> None:
    first = await house.hold_up()
    before = failed()
    waiting = house.announce(3)
    house.announce(3)  # Three and three are more than five.
    waiting += house.announce(2)
    house.announce(1)
    assert failed() - before == 2
    house.publisher.open.set()
    await house.announcer.flushed()
    assert house.publisher.calls == [first, waiting]
    again = house.announce(5)
    await house.announcer.flushed()
    assert house.publisher.calls[-1] == again, "there is room again"


async def test_flushed_at_once_when_nothing_waits(house: House) -> None:
    await asyncio.wait_for(house.announcer.flushed(), 1)
    house.announcer.announce([])
    await asyncio.wait_for(house.announcer.flushed(), 1)


async def test_flushed_waits_for_what_is_under_way_and_for_what_came_after_it(house: House) -> None:
    await house.hold_up()
    house.announce(1)
    flushed = asyncio.create_task(house.announcer.flushed())
    await settle()
    assert not flushed.done()
    house.publisher.open.set()
    await asyncio.wait_for(flushed, 1)
    assert len(house.publisher.calls) == 2


async def test_a_stream_that_is_away_is_told_of_once(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    before = failed()
    house.publisher.error = StreamUnavailable("redis://127.0.0.1:1 can not be reached")
    for _ in range(3):
        house.announce(2)
        await asyncio.wait_for(house.announcer.flushed(), 1)
    house.publisher.error = None
    house.announce(2)
    await house.announcer.flushed()
    said = [(record.levelname, vars(record)["action"]) for record in caplog.records]
    assert said == [("WARNING", "stream_away"), ("INFO", "stream_back")]
    assert failed() - before == 3
    assert len(house.publisher.calls) == 4, "what failed is not tried again: the sweeper finds it"


async def test_an_unforeseen_error_does_not_end_it(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.publisher.error = RuntimeError("a mistake of ours")
    house.announce(1)
    await asyncio.wait_for(house.announcer.flushed(), 1)
    house.publisher.error = None
    ids = house.announce(1)
    await house.announcer.flushed()
    assert house.publisher.calls[-1] == ids
    assert "a mistake of ours" in caplog.text
    assert not house.running.done()
