"""How fast an API that says "slow down" is called by all workers together: one pace in Redis.

By the rules of `delivery.providers.pace`, which is what each worker goes by while Redis is away. Nothing here is a
truth: with an empty Redis the pace is full again until somebody is refused. Each call names one key.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from smtp_proxy.stream.connection import Connection, Script, stream_errors

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from smtp_proxy.config import Settings

_PREFIX: Final = "smtp-proxy:pace"
_TIMEOUT_SECONDS: Final = 0.5
# What nobody asked for in so long is forgotten, ms: longer than the longest pause.
_KEPT_MS: Final = 3_600_000

# Times are milliseconds of Redis's clock, rates a second. Numbers are kept as text, since Lua would cut them short.
# What refusals took is kept as a share, since callers of one account may be at most at different rates: a rate would be
# cut down to that of the slowest.
_STATE: Final = """
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local most, least = tonumber(ARGV[1]), tonumber(ARGV[2])
    local said = redis.call('HMGET', KEYS[1], 'share', 'pause', 'paused_until')
    local share, pause, paused_until = tonumber(said[1] or 1), tonumber(said[2] or 0), tonumber(said[3] or 0)
    local function text(number) return string.format('%.17g', number) end
    local function rate(most) return math.max(math.min(most, least), most * share) end
    local function keep()
        redis.call('HSET', KEYS[1], 'share', text(share), 'pause', text(pause), 'paused_until', text(paused_until))
        redis.call('PEXPIRE', KEYS[1], ARGV[3])
    end
"""
# ARGV: most, least, kept, count, patience. Returns for how many ms to wait, and whether it is slowed down; a wait
# beyond the patience takes nothing. What is taken counts for those that may go faster too, so that all together go no
# faster than the fastest, and not for those that go slower.
_TAKE = Script(
    _STATE
    + """
    local wait = math.max(0, paused_until - now)
    local own, nexts = 'next_at ' .. ARGV[1], {}
    nexts[own] = {most, 0}
    local all = redis.call('HGETALL', KEYS[1])
    for n = 1, #all, 2 do
        local theirs = tonumber(string.match(all[n], '^next_at (.+)$'))
        if theirs and theirs >= most then nexts[all[n]] = {theirs, tonumber(all[n + 1])} end
    end
    for _, turn in pairs(nexts) do wait = math.max(wait, turn[2] - 1000 - now) end
    if wait <= tonumber(ARGV[5]) then
        for name, turn in pairs(nexts) do
            redis.call('HSET', KEYS[1], name, text(math.max(turn[2], now) + 1000 * ARGV[4] / rate(turn[1])))
        end
        keep()
    end
    local slowed = 0
    if share < 1 or pause > 0 then slowed = 1 end
    return {math.ceil(wait), slowed}
    """
)
# ARGV: most, least, kept, what is added to the share. What succeeds within a pause was under way at the refusal.
_WENT_WELL = Script(
    _STATE
    + """
    if now < paused_until then return 0 end
    share, pause = math.min(1, share + ARGV[4]), 0
    keep()
    return 1
    """
)
# ARGV: most, least, kept, the first pause, the longest, its stretch. Returns 1: slower from now on.
_TOO_FAST = Script(
    _STATE
    + """
    if now < paused_until then return 0 end
    if pause == 0 then pause = tonumber(ARGV[4]) end
    share = math.min(share, math.max(least / most, share / 2))
    paused_until = now + pause * ARGV[6]
    pause = math.min(pause * 2, tonumber(ARGV[5]))
    keep()
    return 1
    """
)


class Rates(NamedTuple):
    """Between which rates a caller goes, a second. Those that share a name may differ in it."""

    most: float
    least: float  # refusals make it no slower


class Turn(NamedTuple):
    """When a call may be made."""

    wait_seconds: float
    is_slowed: bool  # successes are worth telling


class Backoff(NamedTuple):
    """What a refusal does."""

    first_seconds: float
    most_seconds: float
    stretch: float  # of the pause, by chance


class Paces:
    """The fleet's paces, each by its name.

    Callers of one name share pauses and by how much refusals slow down; each is within its own rates.
    """

    def __init__(self, settings: Settings) -> None:
        self._redis = Connection(settings)
        self._timeout_seconds = min(_TIMEOUT_SECONDS, settings.redis_timeout_seconds)
        self._telling: set[asyncio.Task[None]] = set()

    async def take(self, name: str, rates: Rates, count: int, patience_seconds: float) -> Turn:
        """`count` are about to be sent, after the wait; one longer than the patience takes nothing.

        Raises StreamUnavailable.
        """
        wait_ms, slowed = await self._run(_TAKE, name, rates, count, patience_seconds * 1000)
        return Turn(wait_ms / 1000, bool(slowed))

    async def went_well(self, name: str, rates: Rates, more: float) -> None:
        """A call succeeded: faster by this share of the most, and the next pause is a short one.

        Within a pause it says nothing: the call was under way when the API refused. Raises StreamUnavailable.
        """
        await self._run(_WENT_WELL, name, rates, more)

    async def too_fast(self, name: str, rates: Rates, backoff: Backoff) -> bool:
        """The API refused. False: together with another worker's call, which counted. Raises StreamUnavailable."""
        first, longest = backoff.first_seconds * 1000, backoff.most_seconds * 1000
        return bool(await self._run(_TOO_FAST, name, rates, first, longest, backoff.stretch))

    def in_background(self, telling: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """What an API answered is told while the answer goes its way; `close` and `told` wait for it."""
        task = asyncio.create_task(telling, name="pace")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
        return task

    async def told(self) -> None:
        """Wait for what is told in the background; each has a time-out."""
        await asyncio.gather(*self._telling)

    async def close(self) -> None:
        await self.told()
        await self._redis.close()

    async def _run(self, script: Script, name: str, rates: Rates, *arguments: float) -> Any:
        key = f"{_PREFIX}:{{{hashlib.sha256(name.encode()).hexdigest()[:32]}}}"
        given: list[str | int] = [repr(float(rates.most)), repr(rates.least), _KEPT_MS, *map(repr, arguments)]
        async with stream_errors(self._timeout_seconds):
            return await script.call(self._redis, key, given)
