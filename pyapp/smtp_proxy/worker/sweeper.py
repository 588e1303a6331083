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
from smtp_proxy.telemetry.metrics import PUBLISH_FAILED, PUBLISHED, QUEUE_DEPTH, SWEPT

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
# A statement that reads everything may take long, and whoever claims mail waits while we try.
_PARTITIONS_BUSY_SECONDS: Final = 60.0
# The count in Postgres is dear while much waits.
_STORE_DEPTH_SECONDS: Final = 10.0
# With so many batches unread in the stream, one more per round is enough.
_STREAM_FULL_BATCHES: Final = 10
_PUBLISHED = PUBLISHED.labels("sweeper")


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
        hand_over: Callable[[list[UUID]], None],
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
        self._led = False

    async def run(self) -> None:
        """Sweep while leading; until cancelled."""
        leader = self._store.leader(LEADER_NAME)
        try:
            while True:
                await self._round(leader)
                await asyncio.sleep(self._settings.sweep_interval_seconds)
        finally:
            await leader.release()

    async def _round(self, leader: Leader) -> None:
        try:
            leads = await leader.try_acquire()
            if leads != self._led:
                self._led = leads
                log.info("leads" if leads else "no longer leads", extra={"action": "lead", "leads": leads})
            if leads and self._calm:
                await self.sweep()
        except StoreUnavailable as error:
            self._calm.trouble()
            log.warning("not swept: %s", error, extra={"action": "sweep_failed"})
        except StoreError:
            log.exception("the sweep was refused by the store", extra={"action": "sweep_failed"})

    async def sweep(self) -> None:
        """One round of the leader. Raises StoreUnavailable."""
        now = self._clock.monotonic()
        if now >= self._partitions_at:
            self._partitions_at = now + await self._make_partitions()
        try:
            unread = await self._stream.depth()
        except StreamUnavailable:
            await self._measure_store(now)
            return
        QUEUE_DEPTH.set(unread)
        full = unread >= _STREAM_FULL_BATCHES * self._settings.sweep_batch_messages
        while await self._sweep_batch() and not full:
            pass

    async def _make_partitions(self) -> float:
        """Returns in how many seconds to do it again. They are made days ahead, so no sweep waits for them."""
        try:
            await self._store.ensure_partitions(self._clock.now(), self._settings.partition_days_ahead)
        except SchemaBusy as error:
            log.warning("partitions are not made yet: %s", error, extra={"action": "partitions_busy"})
            return _PARTITIONS_BUSY_SECONDS
        return _PARTITIONS_SECONDS

    async def _sweep_batch(self) -> bool:
        """Sweep and publish one batch. False: there was no more, or nowhere to publish it."""
        settings = self._settings
        due = await self._store.sweep(settings.sweep_batch_messages, settings.sweep_after_seconds)
        if not due:
            return False
        SWEPT.inc(len(due))
        try:
            missing = await self._stream.missing(due)
            await self._publisher.publish(missing)
        except StreamUnavailable as error:
            PUBLISH_FAILED.inc()
            log.warning("taking %d messages here: %s", len(due), error, extra={"action": "publish_failed"})
            self._hand_over(due)
            return False
        _PUBLISHED.inc(len(missing))
        log.debug("%d due, %d published", len(due), len(missing), extra={"action": "swept", "messages": len(due)})
        return True

    async def _measure_store(self, now: float) -> None:
        if now >= self._depth_at:
            self._depth_at = now + _STORE_DEPTH_SECONDS
            QUEUE_DEPTH.set(await self._store.depth())
