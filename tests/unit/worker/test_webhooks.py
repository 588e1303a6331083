"""Telling endpoints: calls end with the lead and with the process, and what was answered is kept whatever comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from store_suite import attempt_for, core_envelope
from virtual_time import LoopClock

from smtp_proxy.config import Settings
from smtp_proxy.errors import StoreUnavailable
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.webhook import Told, Webhook
from smtp_proxy.sealing import Sealed, new_key_line, parse_keys
from smtp_proxy.store import MemoryStore
from smtp_proxy.store.ids import new_id
from smtp_proxy.telemetry.tasks import end, finish
from smtp_proxy.worker.webhook_post import Poster
from smtp_proxy.worker.webhooks import LEADER_NAME, Webhooks

Answer = Callable[[int], Awaitable[str]]
KEYS = parse_keys(new_key_line(), "a test")


async def forever(_: int) -> str:
    await asyncio.Event().wait()
    return ""


@dataclass
class Endpoint:
    """Answers the n-th call, counted from 0."""

    answer: Answer
    called: list[str] = field(default_factory=list)
    under_way: int = 0

    async def post(self, _url: str, _secret: bytes, event_id: str, _payload: dict[str, Any], _timestamp: int) -> str:
        number = len(self.called)
        self.called.append(event_id)
        self.under_way += 1
        try:
            return await self.answer(number)
        finally:
            self.under_way -= 1


class House:
    """A tenant with a webhook, and one candidate for the lead."""

    def __init__(self, answer: Answer) -> None:
        self.clock = LoopClock()
        self.store = MemoryStore(self.clock)
        self.endpoint = Endpoint(answer)
        self.webhook = UUID(int=0)
        self.tenant = UUID(int=0)

    async def mail(self, count: int) -> None:
        """So many messages, each delivered: an event each."""
        now = self.clock.now()
        self.tenant = (await self.store.create_tenant("acme")).id
        webhook = Webhook(new_id(now), self.tenant, "https://x.example/", (), Sealed("", b""), now)
        webhook = replace(webhook, sealed=KEYS.seal(b"secret", webhook.context))
        self.webhook = webhook.id
        await self.store.add_webhook(webhook)
        worker = uuid4()
        rows = [core_envelope(["a@rcpt.example"], tenant=self.tenant.bytes) for _ in range(count)]
        await self.store.accept(rows, sweep_after_seconds=60.0)
        for job in await self.store.claim([UUID(bytes=row[0]) for row in rows], worker, 60.0):
            await self.store.record([attempt_for(job, worker, Outcome.DELIVERED)])

    def candidate(self) -> asyncio.Task[None]:
        poster = cast("Poster", self.endpoint)
        return asyncio.create_task(Webhooks(Settings(), self.store, poster, KEYS, self.clock).run())

    async def waiting(self) -> int:
        return (await self.store.event_counts([self.webhook])).get(self.webhook, (0, 0))[0]


async def first_eight_then_never(number: int) -> str:
    return "" if number < 8 else await forever(number)


async def test_calls_end_with_the_process_and_what_was_answered_is_recorded() -> None:
    house = House(first_eight_then_never)
    await house.mail(40)
    telling = house.candidate()
    await asyncio.sleep(1)
    assert (len(house.endpoint.called), house.endpoint.under_way) == (16, 8)
    await end([telling])
    assert house.endpoint.under_way == 0
    await asyncio.sleep(60)
    assert len(house.endpoint.called) == 16, "nobody goes on calling"
    assert await house.waiting() == 32, "the eight that were taken are not told again"
    assert house.store.leaders == {}


async def test_calls_end_with_the_lead() -> None:
    house = House(first_eight_then_never)
    await house.mail(40)
    telling = house.candidate()
    await asyncio.sleep(1)
    other = house.store.leader(LEADER_NAME)
    house.store.leaders[LEADER_NAME] = other
    await asyncio.sleep(Settings().webhook_interval_seconds + 1)
    assert house.endpoint.under_way == 0
    assert (len(house.endpoint.called), await house.waiting()) == (16, 32)
    await end([telling])
    assert house.store.leaders == {LEADER_NAME: other}


async def test_calls_end_when_the_lead_is_gone_and_postgres_can_not_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(forever)
    await house.mail(8)
    telling = house.candidate()
    await asyncio.sleep(1)
    house.store.down = True
    await asyncio.sleep(Settings().webhook_interval_seconds + 1)
    assert house.endpoint.under_way == 0
    await end([telling])


async def test_one_event_in_trouble_takes_no_other_along(caplog: pytest.LogCaptureFixture) -> None:
    async def third_is_ours(number: int) -> str:
        if number == 2:
            raise LookupError("not foreseen")
        return ""

    house = House(third_is_ours)
    await house.mail(5)
    telling = house.candidate()
    await asyncio.sleep(2)
    assert (len(house.endpoint.called), await house.waiting()) == (5, 1)
    assert "not foreseen" in caplog.text
    await asyncio.sleep(20)
    assert (len(house.endpoint.called), await house.waiting()) == (6, 0), "tried again, as what was not taken"
    await end([telling])


@pytest.mark.parametrize("takes", [1.0, 1000.0])
async def test_a_record_that_hangs_keeps_nobody_from_leaving(takes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(first_eight_then_never)
    await house.mail(16)
    settle, settled = house.store.settle_events, []

    async def slowly(told: list[Told]) -> None:
        await asyncio.sleep(takes)
        await settle(told)
        settled.extend(told)

    monkeypatch.setattr(house.store, "settle_events", slowly)
    telling = house.candidate()
    await asyncio.sleep(1)
    began = house.clock.monotonic()
    await end([telling])
    assert house.clock.monotonic() - began < 6
    assert len(settled) == (8 if takes == 1.0 else 0)
    assert house.store.leaders == {}


async def test_to_finish_is_bounded_only_once_we_are_cancelled() -> None:
    clock = LoopClock()

    async def work() -> str:
        await asyncio.sleep(50)
        return "done"

    assert await finish(work(), 2.0) == "done"
    hurried = asyncio.create_task(finish(work(), 2.0))
    await asyncio.sleep(1)
    began = clock.monotonic()
    await end([hurried])
    assert 1.9 < clock.monotonic() - began < 2.2

    async def trouble() -> None:
        await asyncio.sleep(1)
        raise StoreUnavailable

    with pytest.raises(StoreUnavailable):
        await finish(trouble(), 2.0)
    task = asyncio.create_task(finish(trouble(), 2.0))
    await asyncio.sleep(0.5)
    await end([task])
    assert task.cancelled()
