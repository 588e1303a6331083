"""How fast an API that says "slow down" is called by all workers together: one pace in Redis.

By the rules of `delivery.providers.pace`, which is what each worker goes by while Redis is away. Nothing here is a
truth: with an empty Redis the pace is full again until somebody is refused. Each call names one key.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from smtp_proxy.stream.connection import Connection, Script, stream_errors

if TYPE_CHECKING:
    from smtp_proxy.config import Settings

_PREFIX: Final = "smtp-proxy:pace"
_TIMEOUT_SECONDS: Final = 0.5
# What nobody asked for in so long is forgotten, ms: longer than the longest pause.
_KEPT_MS: Final = 3_600_000

# Times are milliseconds of Redis's clock, rates a second. Numbers are kept as text, since Lua would cut them short.
_STATE: Final = """
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local most = tonumber(ARGV[1])
    local said = redis.call('HMGET', KEYS[1], 'rate', 'next_at', 'pause', 'paused_until')
    local rate = math.min(most, tonumber(said[1] or most))
    local next_at, pause, paused_until = tonumber(said[2] or 0), tonumber(said[3] or 0), tonumber(said[4] or 0)
    local function keep()
        local text = function(number) return string.format('%.17g', number) end
        redis.call('HSET', KEYS[1], 'rate', text(rate), 'next_at', text(next_at), 'pause', text(pause),
            'paused_until', text(paused_until))
        redis.call('PEXPIRE', KEYS[1], ARGV[2])
    end
"""
# ARGV: most, kept, count, patience. Returns for how many ms to wait, and whether it is slowed down; a wait longer than
# the patience takes nothing.
_TAKE = Script(
    _STATE
    + """
    local wait = math.max(0, next_at - 1000 - now, paused_until - now)
    local slowed = 0
    if rate < most or pause > 0 then slowed = 1 end
    if wait <= tonumber(ARGV[4]) then
        next_at = math.max(next_at, now) + 1000 * ARGV[3] / rate
        keep()
    end
    return {math.ceil(wait), slowed}
    """
)
# ARGV: most, kept, what is added.
_WENT_WELL = Script(
    _STATE
    + """
    rate, pause = math.min(most, rate + ARGV[3]), 0
    keep()
    return 1
    """
)
# ARGV: most, kept, the least rate, the first pause, the longest, its stretch. Returns 1: slower from now on.
_TOO_FAST = Script(
    _STATE
    + """
    if now < paused_until then return 0 end
    if pause == 0 then pause = tonumber(ARGV[4]) end
    rate = math.min(most, math.max(tonumber(ARGV[3]), rate / 2))
    paused_until = now + pause * ARGV[6]
    pause = math.min(pause * 2, tonumber(ARGV[5]))
    keep()
    return 1
    """
)


class Turn(NamedTuple):
    """When a call may be made."""

    wait_seconds: float
    is_slowed: bool  # successes are worth telling


class Backoff(NamedTuple):
    """What a refusal does."""

    least_rate: float  # a second
    first_seconds: float
    most_seconds: float
    stretch: float  # of the pause, by chance


class Paces:
    """The fleet's paces, each by its name, and by how many a second it is at most."""

    def __init__(self, settings: Settings) -> None:
        self._redis = Connection(settings)
        self._timeout_seconds = min(_TIMEOUT_SECONDS, settings.redis_timeout_seconds)

    async def take(self, name: str, most: float, count: int, patience_seconds: float) -> Turn:
        """`count` are about to be sent, after the wait; one longer than the patience takes nothing.

        Raises StreamUnavailable.
        """
        wait_ms, slowed = await self._run(_TAKE, name, most, count, patience_seconds * 1000)
        return Turn(wait_ms / 1000, bool(slowed))

    async def went_well(self, name: str, most: float, more: float) -> None:
        """A call succeeded: so much faster, and the next pause is a short one. Raises StreamUnavailable."""
        await self._run(_WENT_WELL, name, most, more)

    async def too_fast(self, name: str, most: float, backoff: Backoff) -> bool:
        """The API refused. False: together with another worker's call, which counted. Raises StreamUnavailable."""
        first, longest = backoff.first_seconds * 1000, backoff.most_seconds * 1000
        return bool(await self._run(_TOO_FAST, name, most, backoff.least_rate, first, longest, backoff.stretch))

    async def close(self) -> None:
        await self._redis.close()

    async def _run(self, script: Script, name: str, most: float, *arguments: float) -> Any:
        key = f"{_PREFIX}:{{{hashlib.sha256(name.encode()).hexdigest()[:32]}}}"
        async with stream_errors(self._timeout_seconds):
            return await script.call(self._redis, key, [repr(most), _KEPT_MS, *map(repr, arguments)])
