"""Limits of tenants in a real Valkey: the same minutes as ours, shared by many, and gone with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import UUID, uuid4

import pytest
from fix_valkey import ValkeyServer
from hypothesis import HealthCheck, given, settings
from limits_suite import Limits, Reserve, arrivals, assert_never_more, leaving, limits
from stopwatch import Stopwatch

from smtp_proxy.config import Settings
from smtp_proxy.errors import StreamUnavailable
from smtp_proxy.stream import limits as module
from smtp_proxy.stream.limits import RateRequest, SharedLimits
from smtp_proxy.tenants.rates import Ledger

pytestmark = pytest.mark.integration

PATIENCE = 2.0


def sharing(valkey: ValkeyServer) -> SharedLimits:
    return SharedLimits(Settings.load({"redis_url": valkey.url, "redis_timeout_seconds": 1.0}, {}))


@pytest.fixture
async def shared(valkey: ValkeyServer) -> AsyncIterator[SharedLimits]:
    made = sharing(valkey)
    yield made
    await made.close()


def request(tenant: UUID, count: int, messages: int = 5, *, ahead: float = 0) -> RateRequest:
    return RateRequest(tenant, messages, None, ahead, [1] * count)


def reserving(shared: SharedLimits, limits: Limits) -> Reserve:
    tenant = uuid4()

    async def reserve(now: float, counts: Sequence[int]) -> list[float]:
        asked = RateRequest(tenant, limits.messages, limits.recipients, limits.most_ahead_seconds, counts)
        (answer,) = await shared.reserve([asked], PATIENCE, now_ms=round(now * 1000))
        return answer

    return reserve


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limits(), arrivals())
async def test_the_same_minutes_as_our_own(
    valkey: ValkeyServer, limits: Limits, steps: list[tuple[float, list[int]]]
) -> None:
    shared, ledger = sharing(valkey), Ledger()
    both = reserving(shared, limits)

    async def reserve(now: float, counts: Sequence[int]) -> list[float]:
        theirs = await both(now, counts)
        ours = ledger.reserve(
            now,
            counts,
            messages_per_minute=limits.messages,
            recipients_per_minute=limits.recipients,
            most_ahead_seconds=limits.most_ahead_seconds,
        )
        assert theirs == pytest.approx(ours, abs=0.0011)
        return theirs

    try:
        assert_never_more(limits, await leaving(reserve, limits, steps))
    finally:
        await shared.close()


async def test_many_processes_share_one_limit(valkey: ValkeyServer) -> None:
    tenant = uuid4()
    fleet = [sharing(valkey) for _ in range(4)]
    calls = [each.reserve([request(tenant, 3, messages=17)], PATIENCE) for each in fleet for _ in range(3)]
    delays = [delay for answer in await asyncio.gather(*calls) for delay in answer[0]]
    assert sorted(delays)[:17] == [0.0] * 17
    assert all(59 < delay <= 61 for delay in sorted(delays)[17:])
    for each in fleet:
        await each.close()


async def test_many_tenants_in_one_round_trip(shared: SharedLimits, valkey: ValkeyServer) -> None:
    tenants = [uuid4() for _ in range(50)]
    answers = await shared.reserve([request(tenant, n % 7 + 1) for n, tenant in enumerate(tenants)], PATIENCE)
    assert [[delay > 0 for delay in answer] for answer in answers] == [
        [m >= 5 for m in range(n % 7 + 1)] for n in range(50)
    ]
    slots = {key[key.index(b"{") : key.index(b"}")] for key in await _keys(shared)}
    assert {f"{{{tenant}".encode() for tenant in tenants} <= slots, "each its own"


async def test_a_changed_limit_begins_a_minute_of_its_own(shared: SharedLimits) -> None:
    tenant = uuid4()
    (delays,) = await shared.reserve([request(tenant, 100, ahead=1000)], PATIENCE)
    assert max(delays) > 900
    assert await shared.reserve([request(tenant, 3, messages=6, ahead=1000)], PATIENCE) == [[0.0] * 3]


async def test_more_messages_than_one_call_takes(shared: SharedLimits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MESSAGES_PER_CALL", 4)
    tenants = [uuid4(), uuid4()]
    answers = await shared.reserve([request(tenants[0], 10), request(tenants[1], 3)], PATIENCE)
    assert [len(answer) for answer in answers] == [10, 3]
    assert [delay == 0 for delay in answers[0]] == [True] * 5 + [False] * 5


async def test_nothing_stays_for_ever(shared: SharedLimits, valkey: ValkeyServer) -> None:
    await shared.reserve([request(uuid4(), 12, ahead=1000)], PATIENCE)
    await shared.exchange_sessions("me", {uuid4(): 3})
    for key in await _keys(shared):
        assert 0 < await shared._redis.call("PTTL", key) <= 200_000


async def test_a_server_that_was_restarted_is_told_the_script_again(shared: SharedLimits, valkey: ValkeyServer) -> None:
    tenant = uuid4()
    await shared.reserve([request(tenant, 5)], PATIENCE)
    await asyncio.to_thread(valkey.kill)
    with pytest.raises(StreamUnavailable):
        await shared.reserve([request(tenant, 1)], PATIENCE)
    await asyncio.to_thread(valkey.start)
    await shared.ping()
    assert await shared.reserve([request(tenant, 5), request(uuid4(), 1)], PATIENCE) == [[0.0] * 5, [0.0]]


async def test_a_server_that_stands_still_is_not_waited_for(shared: SharedLimits, valkey: ValkeyServer) -> None:
    await shared.ping()
    valkey.pause()
    try:
        with Stopwatch() as call, pytest.raises(StreamUnavailable):
            await shared.reserve([request(uuid4(), 1)], 0.05)
    finally:
        valkey.resume()
    assert call.seconds < 0.5
    await shared.ping()
    assert await shared.reserve([request(uuid4(), 1)], PATIENCE) == [[0.0]]


async def test_sessions_of_the_others(valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SESSIONS_LIVE_MS", 300)
    one, other = sharing(valkey), sharing(valkey)
    a, b = uuid4(), uuid4()
    assert await one.exchange_sessions("one", {a: 3, b: 0}) == {a: 0, b: 0}
    assert await other.exchange_sessions("other", {a: 2, b: 7}) == {a: 3, b: 0}
    assert await one.exchange_sessions("one", {a: 4, b: 1}) == {a: 2, b: 7}
    assert await other.exchange_sessions("other", {a: 0, b: 7}) == {a: 4, b: 1}
    assert await one.exchange_sessions("one", {a: 4}) == {a: 0}
    await asyncio.sleep(0.35)
    assert await one.exchange_sessions("one", {a: 4, b: 1}) == {a: 0, b: 0}, "the other has died"
    await one.close()
    await other.close()


async def _keys(shared: SharedLimits) -> list[bytes]:
    keys: list[bytes] = await shared._redis.call("KEYS", "smtp-proxy:*")
    assert keys
    return keys
