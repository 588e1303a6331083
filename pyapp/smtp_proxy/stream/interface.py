"""What the other rooms may ask of the stream. The Redis classes and `stream.memory` both answer to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID


@dataclass(frozen=True, slots=True)
class Entry:
    """One stream entry: the hint that an envelope has work. `stream` is the shard's key."""

    stream: str
    entry_id: bytes
    envelope_id: UUID


class StreamPublisher(Protocol):
    """Says which envelopes are ready."""

    async def publish(self, envelope_ids: Sequence[UUID]) -> None:
        """Add one entry per id.

        Raises StreamUnavailable within `redis_timeout_seconds`; part of a sharded batch may have been added.
        """
        ...

    async def publish_packed(self, packed: Sequence[bytes]) -> None:
        """As `publish`; each id is its 16 bytes."""
        ...

    async def close(self) -> None: ...


class StreamConsumer(Protocol):
    """One worker's place in the group."""

    async def read(self, count: int, block_ms: int) -> list[Entry]:
        """Up to about `count` new entries; waits at most `block_ms` for the first. Raises StreamUnavailable."""
        ...

    async def done(self, entries: Sequence[Entry]) -> None:
        """Acknowledge and delete. An entry that is gone already is no error. Raises StreamUnavailable."""
        ...

    async def reclaim(self, min_idle_seconds: float, count: int = 100) -> list[Entry]:
        """Take over entries that some consumer has held for so long, and drop consumers that hold nothing.

        Postgres decides what they are worth: claim them, then say `done`. Raises StreamUnavailable.
        """
        ...

    async def close(self) -> None:
        """Leave the group. Whatever was read and not `done` is acknowledged: settle or re-publish it first."""
        ...


class StreamDepth(Protocol):
    """How much work waits in the stream."""

    async def depth(self) -> int:
        """Entries not yet read, plus entries read and not yet `done`. Raises StreamUnavailable."""
        ...

    async def unread(self) -> int:
        """Entries not yet read: what a new one has ahead of it. Raises StreamUnavailable."""
        ...

    async def missing(self, envelope_ids: Sequence[UUID]) -> list[UUID]:
        """Those ids whose entry is surely not waiting unread any more: read, lost or never added.

        The sweeper publishes only these, so that a backlog is not doubled by being swept. Raises StreamUnavailable.
        """
        ...

    async def close(self) -> None: ...
