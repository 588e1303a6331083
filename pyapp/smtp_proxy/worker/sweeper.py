"""Puts on the stream what Postgres says is due: retries whose time has come, and what the stream has lost.

One leader in the fleet, by advisory lock; the others stand by. It publishes no more than the stream can use: what still
waits there unread is not published again, and when much waits, little is added.

Without Redis there is nothing to publish to, and every worker sweeps for itself (`intake`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from smtp_proxy.errors import SchemaBusy, StoreError, StoreUnavailable, StreamUnavailable
from smtp_proxy.model.lane import Lane
from smtp_proxy.telemetry.metrics import BACKLOG_AGE, LANE_DEPTH, PUBLISH_FAILED, PUBLISHED, QUEUE_DEPTH, SWEPT
from smtp_proxy.telemetry.tasks import end

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings
    from smtp_proxy.stream.interface import StreamDepth, StreamPublisher
    from smtp_proxy.worker.lease import Calm
    from smtp_proxy.worker.ports import Leader, MailStore

log = logging.getLogger(__name__)

LEADER_NAME: Final = "sweeper"
_PARTITIONS_SECONDS: Final = 3600.0
# Expired keys of submissions go in so many batches at a time; with more left, again soon.
_KEY_BATCHES: Final = 3
_KEYS_LEFT_SECONDS: Final = 2.0
# A statement that reads everything may take long, and whoever claims mail waits while we try.
_PARTITIONS_BUSY_SECONDS: Final = 60.0
# The count in Postgres is dear while much waits.
_STORE_DEPTH_SECONDS: Final = 10.0
# As dear, and asked for by alarms that look at minutes.
_AGE_SECONDS: Final = 30.0
# What is due at once waits in Postgres, not in the stream, where new mail would wait behind it: no more lies there
# unread than the workers read in so long at their present pace, or than so many.
_AHEAD_SECONDS: Final = 0.1
_AHEAD_MESSAGES: Final = 100
_TOP_UP_SECONDS: Final = 0.05
# A round may take longer than that, so there is enough for so many of them; what workers have in hand bridges the rest.
_ROUNDS_AHEAD: Final = 1.5
_AHEAD_MAX_SECONDS: Final = 0.5
# New mail alone may keep that much unread; some of what is due comes in between all the same, up to so much in all.
_LEAST_MESSAGES: Final = 10
_LEAST_BELOW: Final = 1000
_PUBLISHED = PUBLISHED.labels("sweeper")


class Pace:
    """How much more the stream should be given, by how fast it is read. Pure; times are monotonic seconds."""

    def __init__(self) -> None:
        self._there = 0  # unread after the last look
        self._looked_at: float | None = None

    def room(self, unread: int, now: float) -> int:
        """For how many there is room now. New mail, which is not seen coming, makes the reading look slower."""
        elapsed = 0.0 if self._looked_at is None else now - self._looked_at
        per_second = (self._there - unread) / elapsed if elapsed > 0 else 0.0
        ahead_seconds = min(_AHEAD_MAX_SECONDS, max(_AHEAD_SECONDS, _ROUNDS_AHEAD * elapsed))
        self._there, self._looked_at = unread, now
        least = _LEAST_MESSAGES if unread < _LEAST_BELOW else 0
        return max(least, int(max(_AHEAD_MESSAGES, per_second * ahead_seconds)) - unread)

    def added(self, count: int) -> None:
        """So many were put into the stream since."""
        self._there += count


class Sweeper:
    """One candidate for the lead. `hand_over` takes ids that were swept and could not be published."""

    def __init__(
        self,
        settings: Settings,
        store: MailStore,
        publisher: StreamPublisher,
        stream: StreamDepth,
        *,
        clock: Clock,
        calm: Calm,
        hand_over: Callable[[list[UUID], Lane], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._publisher = publisher
        self._stream = stream
        self._clock = clock
        self._calm = calm
        self._hand_over = hand_over
        self._partitions_at = 0.0
        self._depth_at = 0.0
        self._age_at = 0.0
        self._paces = {lane: Pace() for lane in Lane}
        self._led = False
        self._keeping: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Sweep while leading; until cancelled."""
        leader = self._store.leader(LEADER_NAME)
        try:
            while True:
                more = await self._round(leader)
                await asyncio.sleep(min(_TOP_UP_SECONDS if more else 60.0, self._settings.sweep_interval_seconds))
        finally:
            if self._keeping is not None:
                await end([self._keeping])
            await leader.release()

    def _keep_up_beside(self) -> None:
        if self._keeping is not None and self._keeping.done():
            self._keeping.result()  # of a fault that nobody foresaw
            self._keeping = None
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep_up(), name="sweeper's upkeep")

    async def _keep_up(self) -> None:
        """Everything else that a leader does, beside the sweep: mail that is due neither waits nor fails with it."""
        now = self._clock.monotonic()
        if now >= self._partitions_at:
            self._partitions_at = now + _PARTITIONS_BUSY_SECONDS
            try:
                self._partitions_at = now + await self._make_partitions()
            except StoreError as error:
                # Told at once and in full, since without partitions a day's mail goes into the default one.
                log.error("partitions are not made: %s", error, extra={"action": "partitions_failed"})  # noqa: TRY400
        if now >= self._age_at:
            self._age_at = now + _AGE_SECONDS
            try:
                BACKLOG_AGE.set(await self._store.backlog_age_seconds())
            except StoreError as error:
                log.warning("the backlog's age is not known: %s", error, extra={"action": "age_failed"})

    async def _round(self, leader: Leader) -> bool:
        """Whether there is more to be swept soon."""
        try:
            leads = await leader.try_acquire()
            if leads != self._led:
                self._led = leads
                BACKLOG_AGE.set(0)  # whoever leads now measures it
                log.info("leads" if leads else "no longer leads", extra={"action": "lead", "leads": leads})
            if leads and self._calm:
                self._keep_up_beside()
                return await self.sweep()
        except StoreUnavailable as error:
            self._calm.trouble()
            log.warning("not swept: %s", error, extra={"action": "sweep_failed"})
        except StoreError:
            log.exception("the sweep was refused by the store", extra={"action": "sweep_failed"})
        return False

    async def sweep(self) -> bool:
        """One round of the leader; whether more is due than the stream was given. Raises StoreUnavailable."""
        now = self._clock.monotonic()
        try:
            standings = await self._stream.standings()
        except StreamUnavailable:
            await self._measure_store(now)
            return False
        QUEUE_DEPTH.set(sum(standing.depth for standing in standings.values()))
        more = False
        for lane, standing in standings.items():  # what is transactional first
            LANE_DEPTH.labels(lane.name.lower()).set(standing.depth)
            more |= await self._sweep_lane(lane, self._paces[lane].room(standing.unread, now))
        return more

    async def _sweep_lane(self, lane: Lane, room: int) -> bool:
        """Whether more is due in this lane than there was room for."""
        while room > 0:
            swept = await self._sweep_batch(min(room, self._settings.sweep_batch_messages), lane)
            if not swept:
                return False
            self._paces[lane].added(swept)
            room -= swept
        return True

    async def _make_partitions(self) -> float:
        """Returns in how many seconds to do it again. They are made days ahead, so no sweep waits for them."""
        try:
            await self._store.ensure_partitions(self._clock.now(), self._settings.partition_days_ahead)
            for _ in range(_KEY_BATCHES):
                if not await self._store.forget_submission_keys():
                    break
            else:
                return _KEYS_LEFT_SECONDS  # Mail that is due comes first.
        except SchemaBusy as error:
            log.warning("partitions are not made yet: %s", error, extra={"action": "partitions_busy"})
            return _PARTITIONS_BUSY_SECONDS
        return _PARTITIONS_SECONDS

    async def _sweep_batch(self, most: int, lane: Lane) -> int:
        """Sweep and publish at most so many; how many those were. 0 as well where there is nowhere to publish."""
        settings = self._settings
        due = await self._store.sweep(most, settings.sweep_after_seconds, lane)
        if not due:
            return 0
        SWEPT.inc(len(due))
        try:
            missing = await self._stream.missing(due, lane)
            await self._publisher.publish(missing, lane)
        except StreamUnavailable as error:
            PUBLISH_FAILED.inc()
            log.warning("taking %d messages here: %s", len(due), error, extra={"action": "publish_failed"})
            self._hand_over(due, lane)
            return 0
        _PUBLISHED.inc(len(missing))
        log.debug("%d due, %d published", len(due), len(missing), extra={"action": "swept", "messages": len(due)})
        return len(due)

    async def _measure_store(self, now: float) -> None:
        if now >= self._depth_at:
            self._depth_at = now + _STORE_DEPTH_SECONDS
            QUEUE_DEPTH.set(await self._store.depth())
