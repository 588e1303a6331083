"""Until when mail is kept, and a housekeeper that never takes the house down with it."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.clock import SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.errors import StoreUnavailable
from smtp_proxy.model.retention import Retention as TenantRetention
from smtp_proxy.store.ids import first_id
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
