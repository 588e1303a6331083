"""Tells the stream what was accepted, behind the clients' backs.

A 250 never waits for Redis: batches of ids go into a bounded queue, and one task publishes whatever is in it with one
call. What does not fit, or cannot be published, is dropped: Postgres has it, and the sweeper finds it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from smtp_proxy.errors import StreamUnavailable
from smtp_proxy.model.lane import Lane
from smtp_proxy.telemetry.metrics import PUBLISH_FAILED, PUBLISHED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smtp_proxy.ingress.ports import Publisher

log = logging.getLogger(__name__)

# 16 bytes each while they wait; at 10,000/s this is the time that Redis may take to fail over.
_WAITING_IDS: Final = 100_000
# From one call to the next: an id that comes after a pause goes at once, a stream of them goes in fewer calls, each of
# which costs this process as much as storing some ten messages.
_GATHER_SECONDS: Final = 0.005
_PUBLISHED = PUBLISHED.labels("ingress")


class Announcer:
    """One queue, one task."""

    def __init__(
        self, publisher: Publisher, *, waiting_ids: int = _WAITING_IDS, gather_seconds: float = _GATHER_SECONDS
    ) -> None:
        self._publisher = publisher
        self._gather_seconds = gather_seconds
        self._most = waiting_ids
        self._ids: dict[Lane, list[bytes]] = {lane: [] for lane in Lane}
        self._some = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._away = False

    def announce(self, envelope_ids: Sequence[bytes], lane: Lane = Lane.TRANSACTIONAL) -> None:
        """These are committed. Returns at once and never fails."""
        if sum(map(len, self._ids.values())) + len(envelope_ids) > self._most:
            PUBLISH_FAILED.inc()
            return
        self._ids[lane].extend(envelope_ids)
        self._idle.clear()
        self._some.set()

    async def run(self) -> None:
        """Publish; for ever."""
        while True:
            await self._some.wait()
            self._some.clear()
            gathered, self._ids = self._ids, {lane: [] for lane in Lane}
            for lane, ids in gathered.items():
                if ids:
                    await self._publish(ids, lane)
            if not any(self._ids.values()):
                self._idle.set()
            await asyncio.sleep(self._gather_seconds)

    async def flushed(self) -> None:
        """Wait until nothing waits."""
        await self._idle.wait()

    async def _publish(self, ids: list[bytes], lane: Lane) -> None:
        try:
            await self._publisher.publish_packed(ids, lane)
        except StreamUnavailable as error:
            PUBLISH_FAILED.inc()
            if not self._away:
                log.warning("left to the sweeper: %s", error, extra={"action": "stream_away"})
            self._away = True
        except Exception:
            PUBLISH_FAILED.inc()
            log.exception("publishing failed in an unforeseen way", extra={"action": "publish_failed"})
        else:
            _PUBLISHED.inc(len(ids))
            if self._away:
                log.info("the stream takes ids again", extra={"action": "stream_back"})
            self._away = False
