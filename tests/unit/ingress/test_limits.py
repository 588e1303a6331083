"""The core is kept to the tenants' limits: at MAIL, and at login."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest
from ingress_fakes import FakeShared, settle

from smtp_proxy.clock import ManualClock
from smtp_proxy.core import Outline
from smtp_proxy.ingress.limits import LimitDesk
from smtp_proxy.model.limits import TenantLimits
from smtp_proxy.store.memory import MemoryStore
from smtp_proxy.tenants.limits import TenantLimiter


class FakeCore:
    """The core, as far as single tenants go."""

    def __init__(self) -> None:
        self.shut: list[tuple[bytes, float]] = []
        self.limits: list[dict[bytes, int]] = []
        self.sessions: dict[bytes, int] = {}

    def shut_tenant(self, tenant_id: bytes, seconds: float) -> None:
        self.shut.append((tenant_id, seconds))

    def limit_sessions(self, limits: Sequence[tuple[bytes, int]]) -> None:
        self.limits.append(dict(limits))

    def tenant_sessions(self) -> dict[bytes, int]:
        return self.sessions


class House:
    def __init__(self) -> None:
        self.core, self.clock, self.shared = FakeCore(), ManualClock(), FakeShared()
        self.store = MemoryStore(self.clock)
        self.limiter = TenantLimiter(self.shared, self.clock, timeout_seconds=0.05, delay_max_seconds=100)
        self.desk = LimitDesk(self.core, self.store, self.limiter, self.shared, clock=self.clock)
        self.acme = UUID(int=0)

    async def limit(self, limits: TenantLimits) -> None:
        if not self.acme.int:
            self.acme = (await self.store.create_tenant("acme")).id
        await self.store.set_tenant_limits("acme", limits)
        await self.desk.reload()

    def rows(self, count: int) -> list[Outline]:
        return [(uuid4().bytes, self.acme.bytes, 1, 100) for _ in range(count)]


@pytest.fixture
def house() -> House:
    return House()


async def test_who_is_over_its_rate_hears_so_at_mail_until_it_fits(house: House) -> None:
    await house.limit(TenantLimits(messages_per_minute=2))
    assert await house.desk.judge(house.rows(2)) is None
    assert house.core.shut == []
    await house.desk.judge(house.rows(1))
    ((tenant, seconds),) = house.core.shut
    assert tenant == house.acme.bytes
    assert 59 < seconds <= 60


async def test_a_changed_limit_opens_at_once(house: House) -> None:
    await house.limit(TenantLimits(messages_per_minute=1))
    await house.desk.judge(house.rows(2))
    await house.limit(TenantLimits(messages_per_minute=100))
    assert house.core.shut[1:] == [(house.acme.bytes, 0.0)]
    assert await house.desk.judge(house.rows(90)) is None


async def test_sessions_left_over_by_the_others(house: House) -> None:
    await house.limit(TenantLimits(sessions=10))
    assert house.core.limits[-1] == {house.acme.bytes: 10}
    house.core.sessions = {house.acme.bytes: 3, UUID(int=77).bytes: 5}
    house.shared.elsewhere = {house.acme: 4}
    await house.desk.share_sessions()
    assert house.shared.said == [{house.acme: 3}]
    assert house.core.limits[-1] == {house.acme.bytes: 6}
    house.shared.elsewhere = {house.acme: 40}
    await house.desk.share_sessions()
    assert house.core.limits[-1] == {house.acme.bytes: 0}
    told = len(house.core.limits)
    await house.desk.share_sessions()
    assert len(house.core.limits) == told, "nothing new"


async def test_without_redis_what_the_others_had_holds_for_a_while(house: House) -> None:
    await house.limit(TenantLimits(sessions=10))
    house.shared.elsewhere = {house.acme: 4}
    await house.desk.share_sessions()
    house.shared.elsewhere = None
    await house.desk.share_sessions()
    assert house.core.limits[-1] == {house.acme.bytes: 6}
    house.clock.advance(6)
    await house.desk.share_sessions()
    assert house.core.limits[-1] == {house.acme.bytes: 10}


async def test_what_the_others_had_when_nobody_asked_any_more_is_forgotten(house: House) -> None:
    """A limit lifted and set again an hour later began with the sessions of an hour ago."""
    await house.limit(TenantLimits(sessions=10))
    house.shared.elsewhere = {house.acme: 9}
    await house.desk.share_sessions()
    await house.limit(TenantLimits())
    await house.desk.share_sessions()
    house.clock.advance(3600)
    await house.limit(TenantLimits(sessions=5))
    assert house.core.limits[-1] == {house.acme.bytes: 5}


async def test_a_limit_changed_while_redis_is_away_goes_by_what_is_fresh(house: House) -> None:
    await house.limit(TenantLimits(sessions=10))
    house.shared.elsewhere = {house.acme: 4}
    await house.desk.share_sessions()
    house.shared.elsewhere = None
    house.clock.advance(4)
    await house.limit(TenantLimits(sessions=11))
    assert house.core.limits[-1] == {house.acme.bytes: 7}
    house.clock.advance(2)
    await house.limit(TenantLimits(sessions=12))
    assert house.core.limits[-1] == {house.acme.bytes: 12}


async def test_nobody_asks_redis_where_no_sessions_are_limited(house: House) -> None:
    await house.limit(TenantLimits(messages_per_minute=1))
    await house.desk.share_sessions()
    assert house.shared.said == []


async def test_what_is_known_stays_while_the_store_is_away(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.limit(TenantLimits(messages_per_minute=1, sessions=3))
    monkeypatch.setattr("smtp_proxy.ingress.limits._EXCHANGE_SECONDS", 0.0)
    house.store.down = True
    await house.desk.reload()
    assert house.core.limits[-1] == {house.acme.bytes: 3}
    assert await house.desk.judge(house.rows(2)) is not None


async def test_a_change_is_heard_at_once(house: House) -> None:
    await house.limit(TenantLimits(sessions=3))
    tasks = [
        asyncio.create_task(house.desk.run()),
        asyncio.create_task(house.store.listen_credentials(house.desk.changed)),
    ]
    await settle()
    await house.store.set_tenant_limits("acme", TenantLimits(sessions=7))
    await settle()
    assert house.core.limits[-1] == {house.acme.bytes: 7}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
