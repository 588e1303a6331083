"""Puts ids into the stream: one scripted call per batch and shard, after the commit, never before.

Not here: any promise. An id that does not get in is found again by the sweeper, because Postgres has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtp_proxy.stream.connection import Connection, Script, stream_errors
from smtp_proxy.stream.keys import by_shard, stream_keys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from smtp_proxy.config import Settings

# One call holds the server's only thread while it runs: 5,000 XADDs are some milliseconds.
_IDS_PER_CALL: Final = 5000
_ADD = Script("for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'id', ARGV[i]) end return #ARGV")


class Publisher:
    """Says which envelopes are ready; see `stream.interface.StreamPublisher`."""

    def __init__(self, settings: Settings) -> None:
        self._keys = stream_keys(settings.stream_name, settings.stream_shards)
        self._timeout_seconds = settings.redis_timeout_seconds
        self._redis = Connection(settings)

    async def publish(self, envelope_ids: Sequence[UUID]) -> None:
        """Add one entry per id. Raises StreamUnavailable within `redis_timeout_seconds`."""
        if not envelope_ids:
            return
        async with stream_errors(self._timeout_seconds):
            for shard, packed in by_shard(envelope_ids, len(self._keys)).items():
                for start in range(0, len(packed), _IDS_PER_CALL):
                    await _ADD.call(self._redis, self._keys[shard], packed[start : start + _IDS_PER_CALL])

    async def close(self) -> None:
        await self._redis.close()
