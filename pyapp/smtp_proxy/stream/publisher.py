"""Puts ids into the stream: one scripted call per batch and shard, after the commit, never before.

Not here: any promise. An id that does not get in is found again by the sweeper, because Postgres has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtp_proxy.model.lane import Lane
from smtp_proxy.stream.connection import Connection, Script, stream_errors
from smtp_proxy.stream.keys import by_shard, lane_keys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from smtp_proxy.config import Settings

# One call holds the server's only thread while it runs: 5,000 XADDs are some milliseconds.
_IDS_PER_CALL: Final = 5000
# All ids in one argument: redis-py's work for each argument is more than the server's for the entry.
_ADD = Script(
    "local ids = ARGV[1]"
    " for at = 1, #ids, 16 do redis.call('XADD', KEYS[1], '*', 'id', string.sub(ids, at, at + 15)) end"
    " return #ids / 16"
)


class Publisher:
    """Says which envelopes are ready; see `stream.interface.StreamPublisher`."""

    def __init__(self, settings: Settings) -> None:
        self._keys = lane_keys(settings.stream_name, settings.stream_shards)
        self._timeout_seconds = settings.redis_timeout_seconds
        self._redis = Connection(settings)

    async def publish(self, envelope_ids: Sequence[UUID], lane: Lane = Lane.TRANSACTIONAL) -> None:
        """Add one entry per id to this lane. Raises StreamUnavailable within `redis_timeout_seconds`."""
        await self.publish_packed([envelope_id.bytes for envelope_id in envelope_ids], lane)

    async def publish_packed(self, packed: Sequence[bytes], lane: Lane = Lane.TRANSACTIONAL) -> None:
        """As `publish`, of ids as their 16 bytes: for who has many of them, and no other use for a UUID."""
        if not packed:
            return
        keys = self._keys[lane]
        async with stream_errors(self._timeout_seconds):
            for shard, ids in by_shard(packed, len(keys)).items():
                for start in range(0, len(ids), _IDS_PER_CALL):
                    await _ADD.call(self._redis, keys[shard], [b"".join(ids[start : start + _IDS_PER_CALL])])

    async def close(self) -> None:
        await self._redis.close()
