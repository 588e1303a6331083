"""What the other rooms may ask of the stream. The Redis classes and `stream.memory` both answer to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from smtp_proxy.model.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID


@dataclass(frozen=True, slots=True)
class Entry:
    """One stream entry: the hint that an envelope has work. `stream` is the shard's key."""

    stream: str
    entry_id: bytes
    envelope_id: UUID


@dataclass(frozen=True, slots=True)
class Standing:
    """How much of one lane waits."""

    unread: int = 0  # what a new entry has ahead of it
    pending: int = 0  # read and not yet done

    @property
    def depth(self) -> int:
        return self.unread + self.pending


class StreamPublisher(Protocol):
    """Says which envelopes are ready."""

    async def publish(self, envelope_ids: Sequence[UUID], lane: Lane = Lane.TRANSACTIONAL) -> None:
        """Add one entry per id to this lane.

        Raises StreamUnavailable within `redis_timeout_seconds`; part of a sharded batch may have been added.
        """
        ...

    async def publish_packed(self, packed: Sequence[bytes], lane: Lane = Lane.TRANSACTIONAL) -> None:
        """As `publish`; each id is its 16 bytes."""
        ...

    async def close(self) -> None: ...


class StreamConsumer(Protocol):
    """One worker's place in the group."""

    @property
    def is_whole(self) -> bool:
        """False: some shards can not be read just now, and what lies there is to be had from Postgres alone."""
        ...

    async def read(self, count: int, block_ms: int, *, bulk: bool = True) -> list[Entry]:
        """Up to about `count` new entries; waits at most `block_ms` for the first. Raises StreamUnavailable.

        Transactional before bulk, but of many at least `model.lane.BULK_SHARE` are bulk, as long as there are any.
        Without `bulk` transactional ones alone, but for what an earlier call still waits for.
        """
        ...

    async def done(self, entries: Sequence[Entry]) -> None:
        """Acknowledge and delete. An entry that is gone already is no error. Raises StreamUnavailable."""
        ...

    async def reclaim(self, min_idle_seconds: float, count: int = 100, *, bulk: bool = True) -> list[Entry]:
        """Take over entries that some consumer has held for so long, and drop consumers that hold nothing.

        Without `bulk` no bulk mail.

        Postgres decides what they are worth: claim them, then say `done`. Raises StreamUnavailable.
        """
        ...

    async def close(self) -> None:
        """Leave the group. Whatever was read and not `done` is acknowledged: settle or re-publish it first."""
        ...


class StreamDepth(Protocol):
    """How much work waits in the stream."""

    async def depth(self) -> int:
        """Entries not yet read, plus entries read and not yet `done`, of all lanes. Raises StreamUnavailable."""
        ...

    async def standings(self) -> dict[Lane, Standing]:
        """How much waits in each lane. Raises StreamUnavailable."""
        ...

    async def missing(self, envelope_ids: Sequence[UUID], lane: Lane = Lane.TRANSACTIONAL) -> list[UUID]:
        """Those ids whose entry is surely not waiting unread in this lane any more: read, lost or never added.

        The sweeper publishes only these, so that a backlog is not doubled by being swept. Raises StreamUnavailable.
        """
        ...

    async def close(self) -> None: ...
