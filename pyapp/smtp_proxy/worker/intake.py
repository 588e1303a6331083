"""Where the worker's mail comes from: the stream, or Postgres itself while there is no stream.

Entries are read, their envelopes claimed in one go, and what Postgres gives us goes into the hand; an entry whose rows
are not to be had is done with at once, because Postgres is the truth. Without Redis every worker sweeps for itself,
so mail goes on flowing; what the sweeper could not publish is handed in through `offer`. While a part of the stream is
away the rest is read on, in turns with a sweep.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final

from smtp_proxy.errors import StoreUnavailable, StreamUnavailable
from smtp_proxy.model.lane import Lane, Shares

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings
    from smtp_proxy.stream.interface import Entry, StreamConsumer
    from smtp_proxy.worker.hand import Hand, Room
    from smtp_proxy.worker.lease import Leases
    from smtp_proxy.worker.ports import MailStore

log = logging.getLogger(__name__)

_BLOCK_MS: Final = 1000
_BLOCK_WITHOUT_BULK_MS: Final = 100  # bulk mail may be wanted again by then
# A stream that is away is looked for again after so long; in between Postgres is asked alone.
_STREAM_AWAY_SECONDS: Final = 2.0
_STORE_AWAY_SECONDS: Final = 1.0
_OFFERED_MAX: Final = 10_000
# Accepted so lately, by this host's clock and that of Postgres, mail is new: it does not wait for what is older.
_NEW_FOR: Final = timedelta(seconds=10)


class Intake:
    """Fills the hand."""

    def __init__(
        self,
        settings: Settings,
        store: MailStore,
        consumer: StreamConsumer,
        leases: Leases,
        hand: Hand,
        *,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._store = store
        self._consumer = consumer
        self._leases = leases
        self._hand = hand
        self._clock = clock
        self._shares = Shares()
        self._offered: dict[Lane, dict[UUID, None]] = {lane: {} for lane in Lane}
        self._done: list[Entry] = []
        self._done_wake = asyncio.Event()
        self._stream_away_until = 0.0
        self._is_whole = True  # as the log has it
        self._sweep_beside_at = 0.0
        self._swept_last = False
        self._reclaim_at = 0.0
        self._reclaim_bulk_at = 0.0

    def offer(self, envelope_ids: Sequence[UUID], lane: Lane) -> None:
        """Take these without the stream. What is too much is found by a later sweep, which may offer some again."""
        waiting = self._offered[lane]
        for envelope_id in envelope_ids[: max(0, _OFFERED_MAX - len(waiting))]:
            waiting[envelope_id] = None

    def acknowledge(self, entries: Sequence[Entry]) -> None:
        """These are done with: acknowledge them with the next call."""
        if entries:
            self._done.extend(entries)
            self._done_wake.set()

    async def run(self) -> None:
        """Read, claim, hand on; until cancelled."""
        while True:
            room = await self._hand.room()
            entries, envelope_ids = await self._next(room)
            if envelope_ids:
                await self._claim(entries, envelope_ids)

    async def run_acknowledging(self) -> None:
        """One call for everything that was done while the last one ran; until cancelled."""
        while True:
            await self._done_wake.wait()
            self._done_wake.clear()
            entries, self._done = self._done, []
            try:
                await self._consumer.done(entries)
            except StreamUnavailable as error:
                # Somebody reclaims them later, finds nothing to claim and deletes them. Whether the stream is away, the
                # reading shows: these may all be of one shard.
                log.info("not acknowledged: %s", error, extra={"action": "done_failed", "entries": len(entries)})

    # -- where from

    async def _next(self, room: Room) -> tuple[list[Entry], list[UUID]]:
        if offered := self._take_offered(room):
            return [], offered
        now = self._clock.monotonic()
        if now >= self._stream_away_until:
            if swept := await self._sweep_beside(room, now):
                return [], swept
            try:
                entries = await self._read(room, now)
            except StreamUnavailable as error:
                self._stream_is_away(error)
            else:
                return entries, list(dict.fromkeys(entry.envelope_id for entry in entries))
        return [], await self._sweep(room)

    def _take_offered(self, room: Room) -> list[UUID]:
        """Transactional mail first, but for bulk mail's share."""
        first, bulk = self._offered[Lane.TRANSACTIONAL], self._offered[Lane.BULK]
        if not room.bulk:
            return _taken(first, room.count)
        kept = _taken(bulk, self._shares.bulk(room.count)) if first and bulk else []
        found = _taken(first, room.count - len(kept))
        return [*found, *kept, *_taken(bulk, room.count - len(kept) - len(found))]

    async def _read(self, room: Room, now: float) -> list[Entry]:
        if now >= (min(self._reclaim_at, self._reclaim_bulk_at) if room.bulk else self._reclaim_at):
            self._reclaim_at = now + self._settings.worker_lease_seconds
            if room.bulk:
                self._reclaim_bulk_at = self._reclaim_at
            if left := await self._reclaim(room):
                return left
        block_ms = _BLOCK_MS if room.bulk else _BLOCK_WITHOUT_BULK_MS
        if not self._consumer.is_whole:
            block_ms = max(1, min(block_ms, int(1000 * (self._sweep_beside_at - now))))
        entries = await self._consumer.read(room.count, block_ms, bulk=room.bulk)
        if self._stream_away_until:
            self._stream_away_until = 0.0
            log.info("the stream is back", extra={"action": "stream_back"})
        return entries

    async def _reclaim(self, room: Room) -> list[Entry]:
        try:
            return await self._consumer.reclaim(self._settings.worker_lease_seconds, room.count, bulk=room.bulk)
        except StreamUnavailable as error:
            # Of one shard perhaps; the others are read all the same.
            log.info("nothing is taken over: %s", error, extra={"action": "reclaim_failed"})
            return []

    def _stream_is_away(self, error: StreamUnavailable) -> None:
        if not self._stream_away_until:
            log.warning("without the stream, polling Postgres: %s", error, extra={"action": "stream_away"})
        self._stream_away_until = self._clock.monotonic() + _STREAM_AWAY_SECONDS

    async def _sweep_beside(self, room: Room, now: float) -> list[UUID]:
        """While a part of the stream is away: every other time as long as that brings mail, else every few seconds."""
        is_whole = self._consumer.is_whole
        if is_whole is not self._is_whole:
            self._is_whole = is_whole
            log.warning(
                "the stream is %s",
                "whole again" if is_whole else "away in part: polling Postgres beside it",
                extra={"action": "stream_whole" if is_whole else "stream_away_in_part"},
            )
        if is_whole or self._swept_last or now < self._sweep_beside_at:
            self._swept_last = False
            return []
        found = await self._found(room)
        self._swept_last = bool(found)
        self._sweep_beside_at = now if found else now + self._pause_seconds(room)
        return found

    async def _sweep(self, room: Room) -> list[UUID]:
        """What is due according to Postgres; each id goes to one worker only. Waits a little when there is nothing."""
        found = await self._found(room)
        if not found:
            await asyncio.sleep(self._pause_seconds(room))
        return found

    def _pause_seconds(self, room: Room) -> float:
        pause = _STREAM_AWAY_SECONDS if room.bulk else _BLOCK_WITHOUT_BULK_MS / 1000
        return min(self._settings.sweep_interval_seconds, pause)

    async def _found(self, room: Room) -> list[UUID]:
        try:
            if self._leases.calm:
                return await self._sweep_lanes(room)
        except StoreUnavailable as error:
            self._leases.calm.trouble()
            log.warning("nothing to be had: %s", error, extra={"action": "sweep_failed"})
        return []

    async def _sweep_lanes(self, room: Room) -> list[UUID]:
        """Transactional mail first, but for bulk mail's share."""
        seconds, most = self._settings.sweep_after_seconds, room.count
        if not room.bulk:
            return await self._store.sweep(most, seconds)
        bulk = await self._store.sweep(kept, seconds, Lane.BULK) if (kept := self._shares.bulk(most)) else []
        found = await self._store.sweep(most - len(bulk), seconds) if len(bulk) < most else []
        left = most - len(bulk) - len(found)
        return [*found, *bulk, *(await self._store.sweep(left, seconds, Lane.BULK) if left > 0 else [])]

    # -- what for

    async def _claim(self, entries: list[Entry], envelope_ids: list[UUID]) -> None:
        """Claim, and again until Postgres answers: the entries are ours, nobody else looks at them soon."""
        while True:
            try:
                claims = await self._leases.claim(envelope_ids)
                break
            except StoreUnavailable as error:
                self._leases.calm.trouble()
                log.warning("cannot claim: %s", error, extra={"action": "claim_failed"})
                await asyncio.sleep(_STORE_AWAY_SECONDS)
        entries_of: dict[UUID, list[Entry]] = {}
        for entry in entries:
            entries_of.setdefault(entry.envelope_id, []).append(entry)
        new_since = self._clock.now() - _NEW_FOR
        for claim in claims:
            envelope = claim.job.envelope
            self._hand.put(claim, entries_of.pop(envelope.id, []), is_new=envelope.received_at > new_since)
        self.acknowledge([entry for left in entries_of.values() for entry in left])


def _taken(waiting: dict[UUID, None], count: int) -> list[UUID]:
    """The first so many, which wait no longer."""
    taken = list(islice(waiting, max(0, count)))
    for envelope_id in taken:
        del waiting[envelope_id]
    return taken
