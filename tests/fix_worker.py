"""A worker over fakes: memory store, memory stream, and a transport that does as it is told; time is the loop's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import pytest
from mail import core_envelope
from virtual_time import LoopClock

from smtp_proxy.config import Settings
from smtp_proxy.delivery.transport import NO_LEDGER, Ledger
from smtp_proxy.delivery.turn import FREE_TURN, Turn
from smtp_proxy.model.attempt import Outcome, RecipientResult
from smtp_proxy.model.envelope import DeliveryState, Job
from smtp_proxy.model.lane import Lane
from smtp_proxy.store.memory import MemoryStore
from smtp_proxy.stream.memory import MemoryConsumer, MemoryDepth, MemoryPublisher, MemoryServer
from smtp_proxy.telemetry.lifecycle import Lifecycle
from smtp_proxy.telemetry.tasks import end
from smtp_proxy.worker.sweeper import Sweeper
from smtp_proxy.worker.worker import Worker

Answer = Callable[[Job], Awaitable[Outcome]]


class FakeTransport:
    """Answers every job with `answer`, and remembers what it was given."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.answer: Answer = self._delivered
        self.sends: tuple[int, ...] = ()  # to these recipients of each job, before it answers
        self.at_once = 0
        self.most_at_once = 0

    @staticmethod
    async def _delivered(_job: Job) -> Outcome:
        await asyncio.sleep(0)
        return Outcome.DELIVERED

    async def deliver(self, job: Job, ledger: Ledger = NO_LEDGER, turn: Turn = FREE_TURN) -> list[RecipientResult]:
        self.jobs.append(job)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.sends:
                assert await ledger.sending(self.sends)
            outcome = await self.answer(job)
        finally:
            self.at_once -= 1
        code = {Outcome.DELIVERED: 250, Outcome.DEFERRED: 451, Outcome.REFUSED: 550, Outcome.UNKNOWN: 0}[outcome]
        return [RecipientResult(r.number, outcome, code, "", "as told", "fake:25") for r in job.recipients]

    async def close(self) -> None:
        pass


class House:
    """One worker process and what is around it."""

    def __init__(self, **overrides: object) -> None:
        values = {
            "worker_lease_seconds": 3.0,
            "worker_concurrency": 4,
            "sweep_interval_seconds": 0.05,
            "sweep_after_seconds": 0.2,
            "shutdown_timeout_seconds": 2.0,
            **overrides,
        }
        self.settings = Settings.load(values, {})
        clock = LoopClock()
        self.store = MemoryStore(clock)
        self.server = MemoryServer(clock)
        self.publisher = MemoryPublisher(self.server)
        self.transport = FakeTransport()
        self.lifecycle = Lifecycle(self.settings.shutdown_timeout_seconds)
        self.consumer = MemoryConsumer(self.server, "worker")
        self.worker = Worker(
            self.settings,
            self.store,
            self.publisher,
            self.consumer,
            self.transport,
            lifecycle=self.lifecycle,
            clock=clock,
            chance=lambda: 0.5,
        )
        self.lifecycle.on_close("intake", self.worker.close)
        self.sweeper = Sweeper(
            self.settings,
            self.store,
            self.publisher,
            MemoryDepth(self.server),
            clock=clock,
            calm=self.worker.leases.calm,
            hand_over=self.worker.intake.offer,
        )
        self._sweeping: asyncio.Task[None] | None = None

    def start(self, *, sweeping: bool = False) -> None:
        self.worker.start()
        if sweeping:
            self._sweeping = asyncio.create_task(self.sweeper.run())

    async def accept(
        self, count: int = 1, *recipients: str, publish: bool = True, lane: Lane = Lane.TRANSACTIONAL
    ) -> list[UUID]:
        batch = [core_envelope(*recipients, lane=lane) for _ in range(count)]
        await self.store.accept(batch, sweep_after_seconds=self.settings.sweep_after_seconds)
        ids = [UUID(bytes=row[0]) for row in batch]
        if publish:
            await self.publisher.publish(ids, lane)
        return ids

    async def states(self, envelope_id: UUID) -> list[DeliveryState]:
        return [delivery.state for delivery in (await self.store.message(envelope_id)).deliveries]

    async def all_are(self, ids: list[UUID], state: DeliveryState, seconds: float = 5.0) -> None:
        """Wait until every recipient of `ids` stands there."""

        async def reached() -> bool:
            return all([set(await self.states(i)) == {state} for i in ids])

        await eventually(reached, seconds)

    async def stop(self) -> bool:
        self.lifecycle.stop("the test is over")
        drained = await self.lifecycle.run_until_stopped()
        await self.end()
        return drained

    async def end(self) -> None:
        if self._sweeping is not None:
            await end([self._sweeping])
        await self.worker.leave()
        await self.consumer.close()


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    made = House()
    yield made
    await made.end()
