"""The stream without Redis, for tests: same answers, same suite. `MemoryServer` stands for the Redis of one test.

`available = False` is a Redis that cannot be reached; `flush()` is FLUSHALL.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from smtp_proxy.clock import Clock, SystemClock
from smtp_proxy.errors import StreamUnavailable
from smtp_proxy.model.lane import Lane, Shares
from smtp_proxy.stream.interface import Entry, Standing
from smtp_proxy.stream.keys import accepted_ms, lane_keys

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class _Pending:
    consumer: str
    since: float  # monotonic seconds
    envelope_id: UUID


@dataclass
class _Lane:
    """One stream and its group."""

    unread: list[tuple[bytes, UUID]] = field(default_factory=list)
    pending: dict[bytes, _Pending] = field(default_factory=dict)
    last_delivered_ms: int = 0


@dataclass
class MemoryServer:
    """What all publishers and consumers of one test share."""

    clock: Clock = field(default_factory=SystemClock)
    key: str = "email-processing"
    available: bool = True
    lanes: dict[Lane, _Lane] = field(default_factory=lambda: {lane: _Lane() for lane in Lane})
    added: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def unread(self) -> list[tuple[bytes, UUID]]:
        return [entry for lane in self.lanes.values() for entry in lane.unread]

    @property
    def pending(self) -> dict[bytes, _Pending]:
        return {entry_id: pending for lane in self.lanes.values() for entry_id, pending in lane.pending.items()}

    def key_of(self, lane: Lane) -> str:
        return lane_keys(self.key, 1)[lane][0]

    def flush(self) -> None:
        self.lanes = {lane: _Lane() for lane in Lane}

    def check(self) -> None:
        if not self.available:
            raise StreamUnavailable


class MemoryPublisher:
    """See `stream.interface.StreamPublisher`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def publish(self, envelope_ids: Sequence[UUID], lane: Lane = Lane.TRANSACTIONAL) -> None:
        self._server.check()
        now_ms = int(self._server.clock.now().timestamp() * 1000)
        for envelope_id in envelope_ids:
            self._server.added += 1
            self._server.lanes[lane].unread.append((b"%d-%d" % (now_ms, self._server.added), envelope_id))
        self._server.wake.set()

    async def publish_packed(self, packed: Sequence[bytes], lane: Lane = Lane.TRANSACTIONAL) -> None:
        await self.publish([UUID(bytes=each) for each in packed], lane)

    async def close(self) -> None:
        pass


class MemoryConsumer:
    """See `stream.interface.StreamConsumer`."""

    is_whole = True

    def __init__(self, server: MemoryServer, name: str) -> None:
        self._server = server
        self._shares = Shares()
        self.name = name

    async def read(self, count: int, block_ms: int, *, bulk: bool = True) -> list[Entry]:
        server = self._server
        server.check()
        if not (server.unread if bulk else server.lanes[Lane.TRANSACTIONAL].unread):
            server.wake.clear()
            try:
                async with asyncio.timeout(block_ms / 1000):
                    await server.wake.wait()
            except TimeoutError:
                return []
            server.check()
        unread = {lane: len(kept.unread) for lane, kept in server.lanes.items()}
        if not bulk:
            return self._take(Lane.TRANSACTIONAL, count)
        kept = self._shares.bulk(count) if all(unread.values()) else 0
        first = min(unread[Lane.TRANSACTIONAL], count - min(kept, unread[Lane.BULK]))
        return [*self._take(Lane.TRANSACTIONAL, first), *self._take(Lane.BULK, count - first)]

    def _take(self, lane: Lane, count: int) -> list[Entry]:
        server, kept = self._server, self._server.lanes[lane]
        taken, kept.unread = kept.unread[:count], kept.unread[count:]
        for entry_id, envelope_id in taken:
            kept.pending[entry_id] = _Pending(self.name, server.clock.monotonic(), envelope_id)
            kept.last_delivered_ms = int(entry_id.split(b"-")[0])
        return [Entry(server.key_of(lane), *pair) for pair in taken]

    async def done(self, entries: Sequence[Entry]) -> None:
        self._server.check()
        for entry in entries:
            for lane in self._server.lanes.values():
                lane.pending.pop(entry.entry_id, None)

    async def reclaim(self, min_idle_seconds: float, count: int = 100, *, bulk: bool = True) -> list[Entry]:
        self._server.check()
        now = self._server.clock.monotonic()
        taken: list[Entry] = []
        lanes = self._server.lanes.items()
        for lane, kept in [(lane, kept) for lane, kept in lanes if bulk or lane is not Lane.BULK]:
            for entry_id, pending in kept.pending.items():
                if now - pending.since >= min_idle_seconds and len(taken) < count:
                    pending.consumer, pending.since = self.name, now
                    taken.append(Entry(self._server.key_of(lane), entry_id, pending.envelope_id))
        return taken

    async def close(self) -> None:
        for lane in self._server.lanes.values():
            lane.pending = {e: pending for e, pending in lane.pending.items() if pending.consumer != self.name}


class MemoryDepth:
    """See `stream.interface.StreamDepth`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def depth(self) -> int:
        return sum(standing.depth for standing in (await self.standings()).values())

    async def standings(self) -> dict[Lane, Standing]:
        self._server.check()
        return {lane: Standing(len(kept.unread), len(kept.pending)) for lane, kept in self._server.lanes.items()}

    async def missing(self, envelope_ids: Sequence[UUID], lane: Lane = Lane.TRANSACTIONAL) -> list[UUID]:
        self._server.check()
        kept = self._server.lanes[lane]
        if not kept.unread or not kept.last_delivered_ms:
            return list(envelope_ids)
        return [i for i in envelope_ids if accepted_ms(i) < kept.last_delivered_ms + 5000]

    async def close(self) -> None:
        pass
