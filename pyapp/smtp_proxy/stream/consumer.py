"""One worker's place in the group: read, say done, take over what the dead have left.

`done` acknowledges *and deletes*, in one scripted call per shard: the stream holds only what still needs doing.
A group that has vanished (FLUSHALL, an empty Redis after a failure) is made again where it is missed, from the
stream's beginning; an entry seen twice costs one look at Postgres.

Each shard has a stream for transactional mail and one for bulk mail, in one slot. While there is little, one command
waits for both, and all that comes is taken. While there is much, a script takes transactional mail first, and leaves
a share to bulk mail.

A shard that can not be read is tried again every few seconds, and the others are read on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from redis.exceptions import ResponseError

from smtp_proxy.errors import StreamUnavailable
from smtp_proxy.model.lane import Lane, Shares
from smtp_proxy.stream.connection import MAX_BLOCK_SECONDS, Connection, Script, is_error, stream_errors
from smtp_proxy.stream.interface import Entry
from smtp_proxy.stream.keys import FIELD, GROUP, lane_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smtp_proxy.config import Settings

# A living consumer is seen at least every MAX_BLOCK_SECONDS.
_CONSUMER_UNUSED_MS: Final = 300_000
# A shard that failed is left alone for so long: to look for its node anew costs the reads of the others, too.
_SHARD_AWAY_SECONDS: Final = 2.0
# Lua's unpack has room for some 8,000 values.
_ENTRIES_PER_CALL: Final = 1000

# ARGV: group, consumer, how many, how many of them are kept for bulk mail, how many may be. Returns transactional and
# bulk entries.
_TAKE = Script(
    """
    local function take(key, count)
        if count < 1 then return {} end
        local command = {'XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', count, 'STREAMS', key, '>'}
        local answer = redis.pcall(unpack(command))
        if answer and answer.err then
            if not string.find(answer.err, 'NOGROUP') then return answer end
            redis.call('XGROUP', 'CREATE', key, ARGV[1], '0', 'MKSTREAM')
            answer = redis.call(unpack(command))
        end
        return answer and answer[1][2] or {}
    end
    local count = tonumber(ARGV[3])
    local bulk = take(KEYS[2], tonumber(ARGV[4]))
    if bulk.err then return bulk end
    local transactional = take(KEYS[1], count - #bulk)
    if not transactional.err then
        local left = math.min(count - #transactional, tonumber(ARGV[5])) - #bulk
        for _, entry in ipairs(take(KEYS[2], left)) do table.insert(bulk, entry) end
        return {transactional, bulk}
    end
    return transactional
    """
)
_DONE = Script(
    "local ids = {unpack(ARGV, 2)} "
    "redis.call('XACK', KEYS[1], ARGV[1], unpack(ids)) "
    "return redis.call('XDEL', KEYS[1], unpack(ids))"
)
# A consumer is deleted with its pending list, so look and delete are one step.
_FORGET = Script(
    """
    local forgotten = 0
    for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
        local c = {}
        for i = 1, #flat, 2 do c[flat[i]] = flat[i + 1] end
        if c['pending'] == 0 and c['name'] ~= ARGV[2] and (ARGV[3] == c['name'] or c['idle'] > tonumber(ARGV[4])) then
            redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], c['name'])
            forgotten = forgotten + 1
        end
    end
    return forgotten
    """
)


@dataclass(eq=False, slots=True)
class _Shard:
    """The two keys of a shard, and what is known of them."""

    transactional: str
    bulk: str
    has_more: bool = False  # the last read did not take all
    away: bool = False  # the last read failed
    again_at: float = 0.0  # when it is read again then, on the loop's clock
    shares: Shares = field(default_factory=Shares)


class Consumer:
    """One worker's place in the group; see `stream.interface.StreamConsumer`. `name` is unique per process."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.name = name
        keys = lane_keys(settings.stream_name, settings.stream_shards)
        pairs = zip(keys[Lane.TRANSACTIONAL], keys[Lane.BULK], strict=True)
        self._shards = [_Shard(*pair) for pair in pairs]
        self._keys = [*keys[Lane.TRANSACTIONAL], *keys[Lane.BULK]]
        self._timeout_seconds = settings.redis_timeout_seconds
        self._reader = Connection(settings, blocking_seconds=MAX_BLOCK_SECONDS)
        self._redis = Connection(settings)
        self._reads: dict[asyncio.Task[list[Entry]], _Shard] = {}

    @property
    def is_whole(self) -> bool:
        """See `stream.interface.StreamConsumer`."""
        return not any(shard.away for shard in self._shards)

    async def read(self, count: int, block_ms: int, *, bulk: bool = True) -> list[Entry]:
        """Up to about `count` new entries; waits at most `block_ms` for the first. Without `bulk` no bulk mail.

        Raises StreamUnavailable within `redis_timeout_seconds` beyond `block_ms`.
        """
        block_ms = max(1, min(block_ms, int(MAX_BLOCK_SECONDS * 1000)))
        if len(self._shards) == 1:
            return await self._read_shard(self._shards[0], count, block_ms, bulk)
        return await self._read_shards(max(1, count // len(self._shards)), block_ms, bulk)

    async def _read_shards(self, count: int, block_ms: int, bulk: bool) -> list[Entry]:
        """Read every shard at once: they lie in different slots, so each has a blocking read of its own.

        One that brings nothing in time for this call goes on for the next: cancelling it could lose what the server
        has just handed out.
        """
        for read in [read for read in self._reads if read.done() and read.exception()]:
            del self._reads[read]  # It failed while nobody asked; this call finds out for itself.
        reading = set(self._reads.values())
        for shard in self._worth_reading():
            if shard not in reading:
                self._reads[asyncio.ensure_future(self._read_shard(shard, count, block_ms, bulk))] = shard
        entries: list[Entry] = []
        trouble: StreamUnavailable | None = None
        while self._reads:
            done, _ = await asyncio.wait(self._reads, return_when=asyncio.FIRST_COMPLETED)
            failed = 0
            for read in done:
                try:
                    entries += self._result(read)
                except StreamUnavailable as error:
                    trouble, failed = error, failed + 1
            if entries or failed < len(done):
                return entries
        raise trouble or StreamUnavailable

    def _worth_reading(self) -> list[_Shard]:
        """Those that have not just failed. All, where none is left: how soon to come again is the caller's then."""
        now = asyncio.get_running_loop().time()
        return [shard for shard in self._shards if not shard.away or now >= shard.again_at] or self._shards

    def _result(self, read: asyncio.Task[list[Entry]]) -> list[Entry]:
        """Of a read that has ended. Raises StreamUnavailable."""
        shard = self._reads.pop(read)
        try:
            entries = read.result()
        except StreamUnavailable:
            shard.away, shard.again_at = True, asyncio.get_running_loop().time() + _SHARD_AWAY_SECONDS
            raise
        shard.away = False
        return entries

    async def _read_shard(self, shard: _Shard, count: int, block_ms: int, bulk: bool) -> list[Entry]:
        if shard.has_more:
            entries = await self._take(shard, count, bulk)
            # Of what was left out nothing is known: it may be much.
            shard.has_more = not bulk or len(entries) >= count
            if entries:
                return entries
        return await self._wait(shard, count, block_ms, bulk)

    async def _take(self, shard: _Shard, count: int, bulk: bool) -> list[Entry]:
        """What is there, in the lanes' shares."""
        kept = shard.shares.bulk(count) if bulk else 0
        arguments: list[bytes | str | int] = [GROUP, self.name, count, kept, count if bulk else 0]
        async with stream_errors(self._timeout_seconds):
            answer = await _TAKE.call(self._redis, (shard.transactional, shard.bulk), arguments)
        return [*_entries(shard.transactional, answer[0]), *_entries(shard.bulk, answer[1])]

    async def _wait(self, shard: _Shard, count: int, block_ms: int, bulk: bool) -> list[Entry]:
        """What comes first, in whichever lane; up to twice as much where both have had nothing and now have much."""
        keys = (shard.transactional, shard.bulk) if bulk else (shard.transactional,)
        command = (
            "XREADGROUP",
            "GROUP",
            GROUP,
            self.name,
            "COUNT",
            count,
            "BLOCK",
            block_ms,
            "STREAMS",
            *keys,
            *(">" for _ in keys),
        )
        async with stream_errors(block_ms / 1000 + self._timeout_seconds):
            try:
                answer = await self._reader.call(*command)
            except ResponseError as error:
                if not is_error(error, "NOGROUP"):
                    raise
                for key in keys:
                    await self._create_group(key)
                answer = await self._reader.call(*command)
        found = {key.decode(): raw for key, raw in answer or ()}
        shard.has_more = not bulk or any(len(raw) >= count for raw in found.values())
        return [entry for key in keys for entry in _entries(key, found.get(key, ()))]

    async def _create_group(self, key: str) -> None:
        try:
            await self._redis.call("XGROUP CREATE", key, GROUP, "0", "MKSTREAM")
        except ResponseError as error:
            if not is_error(error, "BUSYGROUP"):
                raise

    async def done(self, entries: Sequence[Entry]) -> None:
        """Acknowledge and delete, one call per shard. Raises StreamUnavailable, when all have been tried."""
        by_key: defaultdict[str, list[bytes]] = defaultdict(list)
        for entry in entries:
            by_key[entry.stream].append(entry.entry_id)
        trouble: StreamUnavailable | None = None
        for key, entry_ids in by_key.items():
            try:
                await self._done(key, entry_ids)
            except StreamUnavailable as error:
                trouble = error
        if trouble is not None:
            raise trouble

    async def _done(self, key: str, entry_ids: Sequence[bytes]) -> None:
        async with stream_errors(self._timeout_seconds):
            for start in range(0, len(entry_ids), _ENTRIES_PER_CALL):
                await _DONE.call(self._redis, key, [GROUP, *entry_ids[start : start + _ENTRIES_PER_CALL]])

    async def reclaim(self, min_idle_seconds: float, count: int = 100, *, bulk: bool = True) -> list[Entry]:
        """Take over what was held for so long; drop consumers that hold nothing. Raises StreamUnavailable.

        Up to `count` from each key, which are few where somebody died.
        """
        entries: list[Entry] = []
        trouble: StreamUnavailable | None = None
        away = {shard for shard in self._shards if shard.away}
        # One after the other: redis-py opens a cluster's connections under each other's feet.
        for key, shard in self._keys_and_shards(bulk):
            if shard in away:  # Each of its keys might be waited for.
                trouble = trouble or StreamUnavailable()
                continue
            try:
                entries += await self._reclaim_from(key, int(min_idle_seconds * 1000), count)
            except StreamUnavailable as error:
                trouble = error
                away.add(shard)
        if trouble is not None and not entries:
            raise trouble
        # What the other shards gave is ours by now, and nobody would look at it for another lease.
        return entries

    def _keys_and_shards(self, bulk: bool) -> list[tuple[str, _Shard]]:
        first = [(shard.transactional, shard) for shard in self._shards]
        return [*first, *((shard.bulk, shard) for shard in self._shards)] if bulk else first

    async def _reclaim_from(self, key: str, idle_ms: int, count: int) -> list[Entry]:
        async with stream_errors(self._timeout_seconds):
            try:
                answer = await self._redis.call("XAUTOCLAIM", key, GROUP, self.name, idle_ms, "0-0", "COUNT", count)
                await _FORGET.call(self._redis, key, [GROUP, self.name, "", _CONSUMER_UNUSED_MS])
            except ResponseError as error:
                if is_error(error, "NOGROUP") or "no such key" in str(error):
                    return []
                raise
        return _entries(key, answer[1])

    async def close(self) -> None:
        """Leave the group: acknowledge what was read and not done, then take the name out. Never raises."""
        for read in self._reads:
            read.cancel()
        await asyncio.gather(*self._reads, return_exceptions=True)
        try:
            async with stream_errors(self._timeout_seconds):
                for key in self._keys:
                    await self._leave(key)
        except StreamUnavailable:
            pass  # Another worker reclaims the entries and removes the name.
        await self._reader.close()
        await self._redis.close()

    async def _leave(self, key: str) -> None:
        own = ("XREADGROUP", "GROUP", GROUP, self.name, "COUNT", _ENTRIES_PER_CALL, "STREAMS", key, "0")
        try:
            while (answer := await self._redis.call(*own)) and answer[0][1]:
                entry_ids = [raw[0] for raw in answer[0][1]]
                await _DONE.call(self._redis, key, [GROUP, *entry_ids])
            await _FORGET.call(self._redis, key, [GROUP, "", self.name, _CONSUMER_UNUSED_MS])
        except ResponseError as error:
            if not is_error(error, "NOGROUP"):
                raise


def _entries(key: str, raw: Sequence[Any]) -> list[Entry]:
    entries = []
    for entry_id, fields in raw:
        # An entry of a shape we do not know, or deleted under us, still has to be acknowledged: the nil id has no rows.
        packed = fields[1] if fields and fields[0] == FIELD and len(fields[1]) == 16 else bytes(16)
        entries.append(Entry(key, entry_id, UUID(bytes=packed)))
    return entries
