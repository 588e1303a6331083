"""Lets go of what is no longer to be kept: one leader in the fleet, once an hour.

A day is dropped whole when the longest retention of all tenants allows it and nothing in it is open. Tenants with a
shorter one have their mail deleted in batches; so has whatever a day that could not be dropped still holds. The content
of tenants that want none kept goes with the transaction that settles the last recipient; here goes what slipped through
(two workers that settled one message at the same moment, a tenant that has just asked for it).
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from smtp_proxy.errors import SchemaBusy, StoreError
from smtp_proxy.telemetry.metrics import FORGOTTEN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings
    from smtp_proxy.model.retention import Retention as TenantRetention
    from smtp_proxy.store.store import Store

log = logging.getLogger(__name__)

LEADER_NAME: Final = "retention"
# Between batches, so that mail in and out has the database to itself most of the time.
_PAUSE_SECONDS: Final = 0.05
# Mail of those with the longest retention goes with its day; in batches only what a day that stays still holds.
_LATE: Final = timedelta(days=2)
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)  # no id is older


def moment_before(now: datetime, days: int) -> datetime:
    """So many days ago, which may be any number of them; not before 1970."""
    return now - timedelta(days=min(days, (now - _LONG_AGO).days))


class Retention:
    """One candidate for the lead."""

    def __init__(self, settings: Settings, store: Store, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock

    async def run(self) -> None:
        """A round from time to time while leading; until cancelled."""
        leader = self._store.leader(LEADER_NAME)
        try:
            while True:
                try:
                    if await leader.try_acquire():
                        await self.round()
                except StoreError as error:
                    log.warning("nothing is let go of: %s", error, extra={"action": "retention_failed"})
                except Exception:
                    # Whatever is wrong with old mail, new mail goes on.
                    log.exception("nothing is let go of", extra={"action": "retention_failed"})
                await asyncio.sleep(self._settings.retention_interval_seconds)
        finally:
            await leader.release()

    async def round(self) -> None:
        """Let go of all that has to go now; what fails for one tenant stays, others go on. Raises StoreError."""
        now, default = self._clock.now(), self._settings.retention_days
        tenants = await self._store.retentions()
        longest = max([default, *(tenant.days or default for tenant in tenants)]) if default else 0
        if longest:
            await self._drop_days(moment_before(now, longest))
        for tenant in tenants:
            try:
                await self._of_tenant(tenant, now, longest)
            except StoreError as error:
                log.warning(
                    "mail of tenant %s stays for now: %s", tenant.tenant_id, error, extra={"action": "retention_failed"}
                )

    async def _drop_days(self, before: datetime) -> None:
        try:
            dropped = await self._store.drop_days(before)
        except SchemaBusy as error:
            log.warning("a day is not dropped yet: %s", error, extra={"action": "retention_busy"})
        else:
            if dropped:
                log.info("dropped %s", ", ".join(dropped), extra={"action": "days_dropped", "tables": dropped})

    async def _of_tenant(self, tenant: TenantRetention, now: datetime, longest: int) -> None:
        days = tenant.days or self._settings.retention_days
        if not tenant.keep_bodies:
            # Mail that was given up is settled by then. A round that leads for the first time looks no further either:
            # older content goes with its retention.
            since = now - timedelta(seconds=self._settings.retry_give_up_seconds) - _LATE
            await self._batches(
                "contents", lambda after: self._store.forget_contents(tenant.tenant_id, since, after=after)
            )
        if days:
            before = moment_before(now - (_LATE if days == longest else timedelta()), days)
            await self._batches(
                "messages", lambda after: self._store.expire_messages(tenant.tenant_id, before, after=after)
            )

    async def _batches(self, what: str, work: Callable[..., Awaitable[tuple[int, UUID | None]]]) -> None:
        after: UUID | None = None
        while True:
            count, after = await work(after=after)
            FORGOTTEN.labels(what).inc(count)
            if after is None:
                return
            await asyncio.sleep(_PAUSE_SECONDS)
