"""What becomes of a limited tenant's mail, with Redis and without."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from ingress_fakes import FakeShared

from smtp_proxy.clock import ManualClock
from smtp_proxy.core import ID, Outline
from smtp_proxy.model.limits import AtLimit, Held, Placement, TenantLimits
from smtp_proxy.model.tenant import Tenant
from smtp_proxy.telemetry.metrics import REGISTRY
from smtp_proxy.tenants.held import HeldRoom
from smtp_proxy.tenants.limits import Rulings, TenantLimiter

A, B = UUID(int=10), UUID(int=11)


def rows(tenant: UUID, count: int, recipients: int = 1) -> list[Outline]:
    return [(uuid4().bytes, tenant.bytes, recipients, 100) for _ in range(count)]


class House:
    def __init__(self) -> None:
        self.clock, self.shared = ManualClock(), FakeShared()
        self.room = HeldRoom(6)
        self.room.end_count({})
        self.limiter = TenantLimiter(
            self.shared, self.clock, timeout_seconds=0.05, delay_max_seconds=100, held=self.room
        )

    def limit(self, at_limit: AtLimit = AtLimit.REJECT, messages: int = 2) -> None:
        limits = TenantLimits(messages_per_minute=messages, at_limit=at_limit)
        self.limiter.know([Tenant(A, "acme", self.clock.now(), None, limits)])

    async def judge(self, batch: list[Outline]) -> Rulings:
        rulings = await self.limiter.judge(batch)
        assert rulings is not None
        return rulings


@pytest.fixture
def house() -> House:
    return House()


async def test_nobody_is_asked_for_those_without_a_limit(house: House) -> None:
    assert await house.limiter.judge(rows(A, 1000)) is None
    house.limit()
    assert await house.limiter.judge(rows(B, 1000)) is None
    house.limiter.know([Tenant(B, "b", house.clock.now(), None, TenantLimits(sessions=1))])
    assert await house.limiter.judge(rows(B, 1000)) is None, "sessions are the core's"
    assert house.shared.asked == []


async def test_what_is_over_is_refused_and_of_nobody_else(house: House) -> None:
    house.limit()
    a, b = rows(A, 4), rows(B, 4)
    rulings = await house.judge([row for pair in zip(a, b, strict=True) for row in pair])
    assert rulings.refused == {row[ID] for row in a[2:]}
    assert rulings.placements == {}
    assert list(rulings.shut_seconds) == [A.bytes]
    assert 59 < rulings.shut_seconds[A.bytes] <= 61
    house.clock.advance(61)
    assert await house.limiter.judge(rows(A, 2)) is None


async def test_a_limit_may_be_lifted_while_redis_is_asked(house: House) -> None:
    """It ended the service once: what was asked under a limit was ruled on without one."""
    house.limit()
    await house.limiter.recover()
    reserve = house.shared.reserve

    async def lifted_meanwhile(*arguments: object) -> object:
        house.limiter.know([])
        return await reserve(*arguments)  # type: ignore[arg-type]

    house.shared.delays = [[0.0, 0.0, 9.0]]
    house.shared.reserve = lifted_meanwhile  # type: ignore[method-assign,assignment]
    batch = rows(A, 3)
    assert (await house.judge(batch)).refused == {batch[2][ID]}


async def test_many_recipients_do_not_shut_out_one(house: House) -> None:
    """At MAIL it is not known yet how many there will be: 450 there is for what would refuse a single one."""
    limits = TenantLimits(recipients_per_minute=10)
    house.limiter.know([Tenant(A, "acme", house.clock.now(), None, limits)])
    first, second = rows(A, 2, recipients=8)
    rulings = await house.judge([first, second])
    assert (rulings.refused, rulings.shut_seconds) == ({second[ID]}, {})


async def test_what_is_over_is_put_off(house: House) -> None:
    house.limit(AtLimit.DELAY)
    batch = rows(A, 7)
    rulings = await house.judge(batch)
    assert [rulings.placements.get(row[ID]) for row in batch] == [
        None, None, Placement(61.0), Placement(61.0), None, None, None,
    ]  # fmt: skip
    assert rulings.refused == {row[ID] for row in batch[4:]}, "beyond what may be put off"


async def test_what_is_over_is_held(house: House) -> None:
    house.limit(AtLimit.HOLD)
    batch = rows(A, 5)
    rulings = await house.judge(batch)
    assert rulings.placements == {row[ID]: Placement(held=True) for row in batch[2:]}
    assert (rulings.refused, rulings.shut_seconds) == (set(), {})


async def test_beyond_what_may_be_held_it_is_refused(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.limit(AtLimit.HOLD)
    before = REGISTRY.get_sample_value("smtp_tenant_limited_total", {"action": "held_full"}) or 0
    batch = rows(A, 10)
    rulings = await house.judge(batch)
    assert set(rulings.placements) == {row[ID] for row in batch[2:8]}
    assert rulings.refused == {row[ID] for row in batch[8:]}
    assert 59 < rulings.shut_seconds[A.bytes] <= 61, "as if it were set to be refused"
    assert "is rejected, since as much of it is held as may be" in caplog.text
    assert REGISTRY.get_sample_value("smtp_tenant_limited_total", {"action": "held_full"}) == before + 2


async def test_what_was_released_makes_room(house: House) -> None:
    house.limit(AtLimit.HOLD, messages=1)
    await house.judge(rows(A, 7))  # six are held
    house.room.begin_count()
    house.room.end_count({A.bytes: Held(5, 300), B.bytes: Held(6, 400)})
    batch = rows(A, 2)
    rulings = await house.judge(batch)
    assert (list(rulings.placements), rulings.refused) == ([batch[0][ID]], {batch[1][ID]})


def test_what_is_held_is_counted_and_added_to() -> None:
    room = HeldRoom(3, 100)
    assert not room.take(b"a", 1), "who is full after a restart would get as much again"
    room.end_count({})
    assert room.take(b"a", 60)
    assert not room.take(b"a", 41), "bytes"
    assert room.take(b"b", 100), "each for itself"
    room.begin_count()
    assert room.take(b"a", 40), "after the count began: not in it"
    room.begin_count()  # the first one failed
    assert not room.take(b"a", 1)
    room.end_count({b"a": Held(2, 10)})
    assert room.take(b"a", 90)
    assert not room.take(b"a", 0), "messages"
    assert all(HeldRoom().take(b"a", 1 << 40) for _ in range(9)), "without a limit"


async def test_redis_is_asked_once_for_all_and_only_when_it_answers(house: House) -> None:
    limits = TenantLimits(messages_per_minute=2, recipients_per_minute=9, at_limit=AtLimit.DELAY)
    now = house.clock.now()
    house.limiter.know([Tenant(A, "a", now, None, limits), Tenant(B, "b", now, None, TenantLimits(5))])
    await house.limiter.judge(rows(A, 1))
    assert house.shared.asked == []
    await house.limiter.recover()
    assert not house.limiter.is_shared

    house.shared.delays = [[0.0, 0.0], [7.0]]
    await house.limiter.recover()
    batch = [*rows(A, 2), *rows(B, 1)]
    rulings = await house.judge(batch)
    ((one, other),) = house.shared.asked
    assert one == (A, 2, 9, 100, [1, 1])
    assert other == (B, 5, None, 0.0, [1])
    assert (rulings.refused, rulings.shut_seconds) == ({batch[2][ID]}, {B.bytes: 7.0})


async def test_when_redis_goes_away_our_own_count_goes_on(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.limit(messages=3)
    house.shared.delays = [[0.0, 0.0]]
    await house.limiter.recover()
    assert await house.limiter.judge(rows(A, 2)) is None
    house.shared.delays = None
    batch = rows(A, 2)
    assert (await house.judge(batch)).refused == {batch[1][ID]}, "two of three went through before"
    assert len(house.shared.asked) == 2
    await house.judge(rows(A, 1))
    assert len(house.shared.asked) == 2, "not asked again until it answers"
    assert "each process limits tenants by itself" in caplog.text


async def test_it_is_counted_and_said_once_a_minute(house: House, caplog: pytest.LogCaptureFixture) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("smtp_tenant_limited_total", {"action": "held"}) or 0

    before = counted()
    house.limit(AtLimit.HOLD, messages=1)
    for _ in range(3):
        await house.limiter.judge(rows(A, 2))
    assert counted() - before == 5
    assert caplog.text.count("tenant acme is over its rate; its mail is held") == 1
    house.clock.advance(30)
    house.limit(AtLimit.HOLD, messages=1)
    await house.judge(rows(A, 1))
    assert caplog.text.count("over its rate") == 1
    house.clock.advance(31)
    await house.judge(rows(A, 2))
    assert caplog.text.count("over its rate") == 2


async def test_a_changed_limit_holds_for_what_comes_and_not_behind_what_was_put_off(house: House) -> None:
    house.limit(AtLimit.DELAY, messages=1)
    await house.judge(rows(A, 2))
    house.limit(AtLimit.DELAY, messages=3)
    assert await house.limiter.judge(rows(A, 3)) is None


async def test_who_has_no_limit_any_more_is_forgotten(house: House) -> None:
    house.limit()
    await house.judge(rows(A, 5))
    house.limiter.know([])
    assert await house.limiter.judge(rows(A, 5)) is None
    house.limit()
    assert await house.limiter.judge(rows(A, 2)) is None, "its minute begins anew"
