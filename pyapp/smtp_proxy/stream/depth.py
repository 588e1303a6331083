"""How much work waits: lag + pending of the group, over all shards.

Not XLEN: an entry that was acknowledged and not deleted (by an older release, by hand) is no backlog. XLEN serves
only where Redis cannot tell the lag, which it answers with nil after entries were deleted out of order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import ResponseError

from smtp_proxy.model.lane import Lane
from smtp_proxy.stream.connection import Connection, is_error, stream_errors
from smtp_proxy.stream.interface import Standing
from smtp_proxy.stream.keys import GROUP, accepted_ms, lane_keys, shard_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from smtp_proxy.config import Settings

# The accepting host's clock against Redis's.
_CLOCK_MARGIN_MS: Final = 5000
_FOREVER_MS: Final = 1 << 48


class _Group(NamedTuple):
    """Where the group stands in one shard of one lane. `lag` None: Redis cannot tell, or there is no group yet."""

    lag: int | None
    pending: int
    last_delivered_ms: int


class Depth:
    """How much work waits in the stream; see `stream.interface.StreamDepth`."""

    def __init__(self, settings: Settings) -> None:
        self._keys = lane_keys(settings.stream_name, settings.stream_shards)
        self._timeout_seconds = settings.redis_timeout_seconds
        self._redis = Connection(settings)

    async def depth(self) -> int:
        """Entries not yet read plus entries not yet done, of all lanes. Raises StreamUnavailable."""
        return sum(standing.depth for standing in (await self.standings()).values())

    async def standings(self) -> dict[Lane, Standing]:
        """How much waits in each lane, over all shards. Raises StreamUnavailable."""
        async with stream_errors(self._timeout_seconds):
            return {lane: await self._counts(keys) for lane, keys in self._keys.items()}

    async def _counts(self, keys: Sequence[str]) -> Standing:
        unread = pending = 0
        for key in keys:
            standing = await _group(self._redis, key)
            pending += standing.pending
            if standing.lag is None:
                # The length holds the pending entries too: they are deleted when they are acknowledged.
                unread += max(0, int(await self._redis.call("XLEN", key)) - standing.pending)
            else:
                unread += standing.lag
        return Standing(unread, pending)

    async def missing(self, envelope_ids: Sequence[UUID], lane: Lane = Lane.TRANSACTIONAL) -> list[UUID]:
        """Those ids whose entry is surely not waiting unread in this lane any more. Raises StreamUnavailable.

        An entry is read in the order it was added, and an id carries the time of its acceptance (UUIDv7): what was
        accepted after the group's last delivered entry was added has its own entry still ahead of the group.
        """
        unread_from: dict[int, int] = {}
        keys = self._keys[lane]
        shards = len(keys)
        async with stream_errors(self._timeout_seconds):
            for shard in {shard_of(envelope_id, shards) for envelope_id in envelope_ids}:
                standing = await _group(self._redis, keys[shard])
                if standing.lag != 0 and standing.last_delivered_ms:
                    unread_from[shard] = standing.last_delivered_ms + _CLOCK_MARGIN_MS
        if not unread_from:
            return list(envelope_ids)
        return [i for i in envelope_ids if accepted_ms(i) < unread_from.get(shard_of(i, shards), _FOREVER_MS)]

    async def close(self) -> None:
        await self._redis.close()


async def _group(redis: Connection, key: str) -> _Group:
    try:
        groups = await redis.call("XINFO GROUPS", key)
    except ResponseError as error:
        if is_error(error, "no such key"):
            return _Group(0, 0, 0)
        raise
    for flat in groups:
        group: dict[bytes, Any] = dict(zip(flat[::2], flat[1::2], strict=True))
        if group[b"name"] == GROUP.encode():
            return _Group(group.get(b"lag"), group[b"pending"], int(group[b"last-delivered-id"].split(b"-")[0]))
    return _Group(None, 0, 0)
