"""Places at a destination, and its messages per minute, over the whole fleet: leased in Redis.

A place is taken for one transaction and given back after it; one whose worker died runs out by itself. Each destination
and each tenant at it has keys of its own, with a hash tag, and each scripted call names one key: no call crosses a slot
of a Redis Cluster. Nothing here is a truth: with an empty Redis, counting begins anew.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from smtp_proxy.stream.connection import Connection, Script, stream_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smtp_proxy.config import Settings

_PREFIX: Final = "smtp-proxy"
_TIMEOUT_SECONDS: Final = 0.5

# Members are leases, scores when they run out. ARGV: lease, how many at most, for how long in ms. Returns 1: taken.
_TAKE = Script(
    """
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
    if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
    redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[3] + 1000)
    return 1
    """
)
# Only a place that is held still: one that was given back meanwhile stays free. ARGV: lease, for how long in ms.
_RENEW = Script(
    """
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    redis.call('ZADD', KEYS[1], 'XX', now + ARGV[2], ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[2] + 1000)
    return 1
    """
)
# The minutes' seconds are fields of a hash. ARGV: how many per minute. Returns 0: counted, or for how many ms to wait.
_COUNT = Script(
    """
    local time = redis.call('TIME')
    local second, sum, oldest = tonumber(time[1]), 0, nil
    local said = redis.call('HGETALL', KEYS[1])
    for n = 1, #said, 2 do
        local at = tonumber(said[n])
        if at < second - 60 then
            redis.call('HDEL', KEYS[1], said[n])
        else
            sum = sum + tonumber(said[n + 1])
            if not oldest or at < oldest then oldest = at end
        end
    end
    if sum >= tonumber(ARGV[1]) then return (oldest + 61 - second) * 1000 end
    redis.call('HINCRBY', KEYS[1], second, 1)
    redis.call('EXPIRE', KEYS[1], 62)
    return 0
    """
)


class Limit(NamedTuple):
    """What applies to one key. 0: any number."""

    name: str  # of the route, the destination, and the tenant if it is a tenant's
    at_once: int
    per_minute: int


class Places:
    """The fleet's places, asked for one transaction at a time."""

    def __init__(self, settings: Settings) -> None:
        self._redis = Connection(settings)
        self._timeout_seconds = min(_TIMEOUT_SECONDS, settings.redis_timeout_seconds)

    async def take(self, lease: str, limits: Sequence[Limit], lease_seconds: float) -> float:
        """Take a place under each limit, and count one message. 0: done; else nothing is held, try in so many seconds.

        Raises StreamUnavailable; places that were taken by then run out.
        """
        taken: list[Limit] = []
        async with stream_errors(self._timeout_seconds):
            for limit in limits:
                if limit.at_once:
                    arguments: list[bytes | str | int] = [lease, limit.at_once, int(lease_seconds * 1000)]
                    if not await _TAKE.call(self._redis, _key("places", limit.name), arguments):
                        await self._give_back(lease, taken)
                        return 1.0
                    taken.append(limit)
            for limit in reversed(limits):  # a tenant's own first: one over it takes nothing from the others' minute
                if limit.per_minute:
                    wait_ms = await _COUNT.call(self._redis, _key("minute", limit.name), [limit.per_minute])
                    if wait_ms:
                        await self._give_back(lease, taken)
                        return float(wait_ms) / 1000
        return 0.0

    async def renew(self, leases: Sequence[tuple[str, Sequence[Limit]]], lease_seconds: float) -> None:
        """These go on for so long from now. Raises StreamUnavailable; they run out unless a later try succeeds."""
        milliseconds = int(lease_seconds * 1000)
        calls: list[tuple[str, Sequence[bytes | str | int]]] = [
            (_key("places", limit.name), [lease, milliseconds])
            for lease, limits in leases
            for limit in limits
            if limit.at_once
        ]
        async with stream_errors(self._timeout_seconds):
            await _RENEW.call_each(self._redis, calls)

    async def give_back(self, lease: str, limits: Sequence[Limit]) -> None:
        """The transaction is over. Raises StreamUnavailable; the places run out then."""
        async with stream_errors(self._timeout_seconds):
            await self._give_back(lease, limits)

    async def close(self) -> None:
        await self._redis.close()

    async def _give_back(self, lease: str, limits: Sequence[Limit]) -> None:
        held = [limit for limit in limits if limit.at_once]
        if held:
            await self._redis.call_each([("ZREM", _key("places", limit.name), lease) for limit in held])


def _key(what: str, name: str) -> str:
    """Names come from the routes file and from mail: of any length, with any character."""
    return f"{_PREFIX}:{what}:{{{hashlib.sha256(name.encode()).hexdigest()[:32]}}}"
