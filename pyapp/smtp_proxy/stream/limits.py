"""Limits of tenants over the whole fleet, in Redis: their sliding minutes, and their sessions.

Each tenant has keys of its own, with its id as the hash tag, and each scripted call names one of them: so no call
crosses a slot of a Redis Cluster. The calls for all tenants of a batch go in one round trip.

Nothing here is a truth: if Redis is empty or gone, minutes begin anew. Not here: what is done then; see
`tenants.limits`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from smtp_proxy.stream.connection import Connection, Script, stream_errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from smtp_proxy.config import Settings

# A process that has not said for so long how many sessions it has is taken to have none, milliseconds.
SESSIONS_LIVE_MS: Final = 5000
_MESSAGES_PER_CALL: Final = 1000
_PREFIX: Final = "smtp-proxy"

# `tenants.rates.Ledger` in Lua, by the server's clock. The value is "second:messages:recipients;…", oldest first.
# ARGV: messages and recipients per minute (0: any number), most ahead in ms, "now" in ms (0: the server's), and how
# many recipients each message has. Returns milliseconds each.
_RESERVE = Script(
    """
    local ANY, WINDOW = 2 ^ 52, 60
    local most_messages, most_recipients = tonumber(ARGV[1]), tonumber(ARGV[2])
    if most_messages == 0 then most_messages = ANY end
    if most_recipients == 0 then most_recipients = ANY end
    local ahead, now = tonumber(ARGV[3]), tonumber(ARGV[4])
    if now == 0 then
        local time = redis.call('TIME')
        now = time[1] * 1000 + math.floor(time[2] / 1000)
    end
    local second = math.floor(now / 1000)
    local entries, at = {}, second
    for s, m, r in string.gmatch(redis.call('GET', KEYS[1]) or '', '(%d+):(%d+):(%d+)') do
        if tonumber(s) >= second - WINDOW then
            entries[#entries + 1] = {tonumber(s), tonumber(m), tonumber(r)}
            at = math.max(at, tonumber(s))
        end
    end
    local first, messages, recipients = 1, 0, 0
    while first <= #entries and entries[first][1] < at - WINDOW do first = first + 1 end
    for n = first, #entries do
        messages, recipients = messages + entries[n][2], recipients + entries[n][3]
    end
    local answers, booked = {}, false
    for n = 5, #ARGV do
        local cost = math.min(tonumber(ARGV[n]), most_recipients)
        local t, f, m, r = at, first, messages, recipients
        while m + 1 > most_messages or r + cost > most_recipients do
            t = entries[f][1] + WINDOW + 1
            while f <= #entries and entries[f][1] < t - WINDOW do
                m, r, f = m - entries[f][2], r - entries[f][3], f + 1
            end
        end
        local delay = t == second and 0 or t * 1000 - now
        answers[#answers + 1] = delay
        if delay <= ahead then
            at, first, messages, recipients, booked = t, f, m + 1, r + cost, true
            local last = entries[#entries]
            if last and last[1] == t then
                last[2], last[3] = last[2] + 1, last[3] + cost
            else
                entries[#entries + 1] = {t, 1, cost}
            end
        end
    end
    if booked then
        local kept = {}
        for n, e in ipairs(entries) do kept[n] = string.format('%d:%d:%d', e[1], e[2], e[3]) end
        redis.call('SET', KEYS[1], table.concat(kept, ';'), 'PX', (entries[#entries][1] - second + WINDOW + 1) * 1000)
    end
    return answers
    """
)
# ARGV: who says it, how many sessions it has, for how long that holds in ms. Returns how many all others have.
_EXCHANGE = Script(
    """
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    if tonumber(ARGV[2]) > 0 then
        redis.call('HSET', KEYS[1], ARGV[1], string.format('%d:%d', ARGV[2], now + ARGV[3]))
        redis.call('PEXPIRE', KEYS[1], ARGV[3] * 2)
    else
        redis.call('HDEL', KEYS[1], ARGV[1])
    end
    local others, said = 0, redis.call('HGETALL', KEYS[1])
    for n = 1, #said, 2 do
        local count, ends = string.match(said[n + 1], '(%d+):(%d+)')
        if tonumber(ends) < now then
            redis.call('HDEL', KEYS[1], said[n])
        elseif said[n] ~= ARGV[1] then
            others = others + tonumber(count)
        end
    end
    return others
    """
)


class RateRequest(NamedTuple):
    """Messages of one tenant that wait for a ruling. A limit None: any number."""

    tenant_id: UUID
    messages_per_minute: int | None
    recipients_per_minute: int | None
    most_ahead_seconds: float
    recipients: Sequence[int]  # of each message


class SharedLimits:
    """What all processes of a fleet know together of the limited tenants."""

    def __init__(self, settings: Settings) -> None:
        self._timeout_seconds = settings.redis_timeout_seconds
        self._redis = Connection(settings)

    async def ping(self) -> None:
        """One round trip, with the patience of `redis_timeout_seconds`. Raises StreamUnavailable."""
        async with stream_errors(self._timeout_seconds):
            await self._redis.call("PING")

    async def reserve(
        self, requests: Sequence[RateRequest], timeout_seconds: float, *, now_ms: int = 0
    ) -> list[list[float]]:
        """In how many seconds each message of each request may go; see `tenants.rates.Ledger.reserve`.

        Raises StreamUnavailable after `timeout_seconds` at the latest; then some of it may have been counted.
        """
        calls: list[tuple[str, list[bytes | str | int]]] = [
            (
                _rate_key(request),
                [
                    request.messages_per_minute or 0,
                    request.recipients_per_minute or 0,
                    int(request.most_ahead_seconds * 1000),
                    now_ms,
                    *request.recipients[start : start + _MESSAGES_PER_CALL],
                ],
            )
            for request in requests
            for start in range(0, len(request.recipients), _MESSAGES_PER_CALL)
        ]
        async with stream_errors(timeout_seconds):
            answers = iter(await _RESERVE.call_each(self._redis, calls))
        return [
            [
                ms / 1000
                for _ in range(0, len(request.recipients), _MESSAGES_PER_CALL)
                for ms in next(answers)
            ]
            for request in requests
        ]  # fmt: skip

    async def exchange_sessions(self, me: str, counts: Mapping[UUID, int]) -> dict[UUID, int]:
        """Say how many sessions each tenant has here; returns how many it has elsewhere. Raises StreamUnavailable."""
        calls: list[tuple[str, list[bytes | str | int]]] = [
            (_key("sessions", tenant_id), [me, count, SESSIONS_LIVE_MS]) for tenant_id, count in counts.items()
        ]
        async with stream_errors(self._timeout_seconds):
            others = await _EXCHANGE.call_each(self._redis, calls)
        return dict(zip(counts, map(int, others), strict=True))

    async def close(self) -> None:
        await self._redis.close()


def _rate_key(request: RateRequest) -> str:
    """A changed limit begins a minute of its own: nobody is to stand behind what the old one put off."""
    limits = (request.messages_per_minute, request.recipients_per_minute, int(request.most_ahead_seconds))
    return f"{_key('rate', request.tenant_id)}:{':'.join(str(limit or 0) for limit in limits)}"


def _key(what: str, tenant_id: UUID) -> str:
    return f"{_PREFIX}:{what}:{{{tenant_id}}}"
