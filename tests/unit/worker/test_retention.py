"""Until when mail is kept, and a housekeeper that never takes the house down with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_suite import attempt_for, core_envelope
from virtual_time import LoopClock

from smtp_proxy.clock import SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.errors import StoreUnavailable
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.policy import TenantPolicy
from smtp_proxy.model.retention import Forgotten
from smtp_proxy.model.retention import Retention as TenantRetention
from smtp_proxy.store import MemoryStore
from smtp_proxy.store.ids import first_id, new_id
from smtp_proxy.worker.retention import Retention, moment_before

NOW = datetime(2026, 11, 26, tzinfo=UTC)


@given(st.integers(1, 2**31 - 1), st.integers(20 * 365, 200 * 365))
def test_any_number_of_days_has_an_id_that_they_end_with(days: int, days_since_1970: int) -> None:
    """36500 once ended every worker: no id is from before 1970."""
    now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=days_since_1970)
    first_id(moment_before(now, days))
    assert days > 7000 or moment_before(now, days) == now - timedelta(days=days)


class Lead:
    async def try_acquire(self) -> bool:
        return True

    async def release(self) -> None: ...


class Store:
    """Refuses to look at one tenant's mail."""

    def __init__(self, tenants: list[TenantRetention], error: Exception) -> None:
        self._tenants = tenants
        self._error = error
        self.expired: list[UUID] = []
        self.dropped: list[datetime] = []

    def leader(self, _: str) -> Lead:
        return Lead()

    async def retentions(self) -> list[TenantRetention]:
        return self._tenants

    async def expire_messages(self, tenant_id: UUID, before: datetime, *, after: UUID | None) -> tuple[int, None]:
        first_id(before)
        self.expired.append(tenant_id)
        if tenant_id == self._tenants[0].tenant_id:
            raise self._error
        return 0, None

    async def drop_days(self, before: datetime) -> list[str]:
        self.dropped.append(before)
        return []


@pytest.mark.parametrize("error", [StoreUnavailable("a statement took too long"), OverflowError("of ours")])
async def test_trouble_with_one_tenant_ends_neither_the_worker_nor_the_drop_of_days(error: Exception) -> None:
    tenants = [TenantRetention(UUID(int=1), 36_500, True), TenantRetention(UUID(int=2), 7, True)]
    store = Store(tenants, error)
    settings = Settings(retention_interval_seconds=0.01)
    keeping = asyncio.create_task(Retention(settings, cast("Any", store), SystemClock()).run())
    async with asyncio.timeout(5):
        while len(store.dropped) < 3:
            await asyncio.sleep(0.01)
    assert not keeping.done()
    assert store.expired[:2] == (
        [UUID(int=1), UUID(int=2)] if isinstance(error, StoreUnavailable) else [UUID(int=1)] * 2
    )
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping


class Shelf(MemoryStore):
    """A tenant that wants no content kept, and how many messages are looked at for it."""

    def __init__(self, clock: LoopClock) -> None:
        super().__init__(clock)
        self.clock, self.looked_at, self.worker = clock, 0, uuid4()

    async def begun(self) -> UUID:
        self.tenant = (await self.create_tenant("acme")).id
        await self.set_retention(TenantRetention(self.tenant, keep_bodies=False))
        return self.tenant

    async def mail(self, count: int, ago: timedelta = timedelta()) -> list[UUID]:
        ids = [new_id(self.clock.now() - ago) for _ in range(count)]
        rows = [(i.bytes, *core_envelope(["a@x.example"], tenant=self.tenant.bytes)[1:]) for i in ids]
        await self.accept(rows, sweep_after_seconds=60.0)
        return ids

    async def slip_through(self, ids: list[UUID]) -> None:
        """Settled, and their content is there still."""
        await self.set_retention(TenantRetention(self.tenant, keep_bodies=True))
        for job in await self.claim(ids, self.worker, 60.0):
            await self.record([attempt_for(job, self.worker, Outcome.DELIVERED)])
        await self.set_retention(TenantRetention(self.tenant, keep_bodies=False))

    def with_content(self) -> set[UUID]:
        return {envelope_id for envelope_id, envelope in self._envelopes.items() if envelope.body}

    async def forget_contents_of(self, envelope_ids: Sequence[UUID]) -> Forgotten:
        """Also what `forget_contents` does, in memory."""
        self.looked_at += len(envelope_ids)
        return await super().forget_contents_of(envelope_ids)

    async def looked_at_in(self, keeper: Retention) -> int:
        self.looked_at = 0
        await keeper.round()
        return self.looked_at


async def test_what_was_looked_through_for_content_is_not_read_again() -> None:
    shelf = Shelf(clock := LoopClock())
    await shelf.begun()
    keeper = Retention(Settings(), cast("Any", shelf), clock)
    settled = await shelf.mail(1200, ago=timedelta(days=1))
    await shelf.slip_through(settled)
    waiting = await shelf.mail(3, ago=timedelta(days=1))
    recent = await shelf.mail(5)
    assert await shelf.looked_at_in(keeper) == 1208
    assert shelf.with_content() == {*waiting, *recent}
    assert await shelf.looked_at_in(keeper) == 3 + 5, "what has content, and what may have come late"
    await shelf.slip_through([*waiting[:2], *recent])
    late = await shelf.mail(1, ago=timedelta(minutes=5))
    await shelf.slip_through(late)
    await asyncio.sleep(3600)
    assert await shelf.looked_at_in(keeper) == 3 + 6
    assert shelf.with_content() == {waiting[2]}
    assert await shelf.looked_at_in(keeper) == 1
    await shelf.slip_through([waiting[2]])
    assert await shelf.looked_at_in(keeper) == 1
    assert await shelf.looked_at_in(keeper) == 0
    assert shelf.with_content() == set()


async def test_content_that_is_open_for_longer_than_all_others_is_not_lost_sight_of() -> None:
    shelf = Shelf(clock := LoopClock())
    await shelf.begun()
    keeper = Retention(Settings(), cast("Any", shelf), clock)
    held = await shelf.mail(1, ago=timedelta(hours=1))
    await keeper.round()
    await asyncio.sleep(timedelta(days=20).total_seconds())
    await keeper.round()
    await shelf.slip_through(held)
    await keeper.round()
    assert shelf.with_content() == set()


async def test_more_than_can_be_remembered_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtp_proxy.worker.retention._OPEN_MOST", 4)
    shelf = Shelf(clock := LoopClock())
    await shelf.begun()
    keeper = Retention(Settings(), cast("Any", shelf), clock)
    ids = sorted(await shelf.mail(10, ago=timedelta(days=1)))
    for _ in range(2):
        await keeper.round()
    assert await shelf.looked_at_in(keeper) == 10
    await shelf.slip_through(ids[8:])
    await keeper.round()
    assert shelf.with_content() == set(ids[:8])
    await shelf.slip_through(ids)
    await keeper.round()
    assert shelf.with_content() == set()


@pytest.mark.parametrize("max_age_days", [None, 30])
async def test_mail_is_looked_at_for_as_long_as_its_tenant_has_it_tried(max_age_days: int | None) -> None:
    shelf = Shelf(clock := LoopClock())
    await shelf.begun()
    if max_age_days is not None:
        await shelf.set_tenant_policy("acme", TenantPolicy(max_age_seconds=max_age_days * 86_400))
    old = await shelf.mail(1, ago=timedelta(days=20))
    await shelf.slip_through(old)
    await Retention(Settings(), cast("Any", shelf), clock).round()
    assert shelf.with_content() == (set(old) if max_age_days is None else set())
