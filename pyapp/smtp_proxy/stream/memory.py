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
from smtp_proxy.stream.interface import Entry
from smtp_proxy.stream.keys import accepted_ms

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class _Pending:
    consumer: str
    since: float  # monotonic seconds
    envelope_id: UUID


@dataclass
class MemoryServer:
    """What all publishers and consumers of one test share."""

    clock: Clock = field(default_factory=SystemClock)
    key: str = "email-processing"
    available: bool = True
    unread: list[tuple[bytes, UUID]] = field(default_factory=list)
    pending: dict[bytes, _Pending] = field(default_factory=dict)
    last_delivered_ms: int = 0
    added: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def flush(self) -> None:
        self.unread.clear()
        self.pending.clear()
        self.last_delivered_ms = 0

    def check(self) -> None:
        if not self.available:
            raise StreamUnavailable


class MemoryPublisher:
    """See `stream.interface.StreamPublisher`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def publish(self, envelope_ids: Sequence[UUID]) -> None:
        self._server.check()
        now_ms = int(self._server.clock.now().timestamp() * 1000)
        for envelope_id in envelope_ids:
            self._server.added += 1
            self._server.unread.append((b"%d-%d" % (now_ms, self._server.added), envelope_id))
        self._server.wake.set()

    async def publish_packed(self, packed: Sequence[bytes]) -> None:
        await self.publish([UUID(bytes=each) for each in packed])

    async def close(self) -> None:
        pass


class MemoryConsumer:
    """See `stream.interface.StreamConsumer`."""

    def __init__(self, server: MemoryServer, name: str) -> None:
        self._server = server
        self.name = name

    async def read(self, count: int, block_ms: int) -> list[Entry]:
        server = self._server
        server.check()
        if not server.unread:
            server.wake.clear()
            try:
                async with asyncio.timeout(block_ms / 1000):
                    await server.wake.wait()
            except TimeoutError:
                return []
            server.check()
        taken, server.unread = server.unread[:count], server.unread[count:]
        for entry_id, envelope_id in taken:
            server.pending[entry_id] = _Pending(self.name, server.clock.monotonic(), envelope_id)
            server.last_delivered_ms = int(entry_id.split(b"-")[0])
        return [Entry(server.key, *pair) for pair in taken]

    async def done(self, entries: Sequence[Entry]) -> None:
        self._server.check()
        for entry in entries:
            self._server.pending.pop(entry.entry_id, None)

    async def reclaim(self, min_idle_seconds: float, count: int = 100) -> list[Entry]:
        self._server.check()
        now = self._server.clock.monotonic()
        taken: list[Entry] = []
        for entry_id, pending in self._server.pending.items():
            if now - pending.since >= min_idle_seconds and len(taken) < count:
                pending.consumer, pending.since = self.name, now
                taken.append(Entry(self._server.key, entry_id, pending.envelope_id))
        return taken

    async def close(self) -> None:
        for entry_id in [e for e, pending in self._server.pending.items() if pending.consumer == self.name]:
            del self._server.pending[entry_id]


class MemoryDepth:
    """See `stream.interface.StreamDepth`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def depth(self) -> int:
        self._server.check()
        return len(self._server.unread) + len(self._server.pending)

    async def unread(self) -> int:
        self._server.check()
        return len(self._server.unread)

    async def missing(self, envelope_ids: Sequence[UUID]) -> list[UUID]:
        self._server.check()
        if not self._server.unread or not self._server.last_delivered_ms:
            return list(envelope_ids)
        return [i for i in envelope_ids if accepted_ms(i) < self._server.last_delivered_ms + 5000]

    async def close(self) -> None:
        pass
