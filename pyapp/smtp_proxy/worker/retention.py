"""Lets go of what is no longer to be kept: one leader in the fleet, once an hour.

A day is dropped whole when the longest retention of all tenants allows it and nothing in it is open. Tenants with a
shorter one have their mail deleted in batches; so has whatever a day that could not be dropped still holds. The content
of tenants that want none kept goes with the transaction that settles the last recipient; here goes what slipped through
(two workers that settled one message at the same moment, a tenant that has just asked for it). For that each message is
looked at once, and then again only while it has content: see `Looked`.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from smtp_proxy.errors import SchemaBusy, StoreError
from smtp_proxy.model.policy import TenantPolicy
from smtp_proxy.store.ids import first_id
from smtp_proxy.telemetry.metrics import FORGOTTEN
from smtp_proxy.worker.retry import POSTPONED_AGES

if TYPE_CHECKING:
    from collections.abc import Sequence

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
# A message may be committed so long after the moment that its id tells, by whichever clock: it is looked at again.
_LATE_COMMIT: Final = timedelta(minutes=15)
# Messages with content that are remembered by their ids, of a tenant, and looked at with one statement.
_OPEN_MOST: Final = 20_000
_OPEN_BATCH: Final = 500
_AS_THE_REST: Final = TenantPolicy()
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)  # no id is older


def moment_before(now: datetime, days: int) -> datetime:
    """So many days ago, which may be any number of them; not before 1970."""
    return now - timedelta(days=min(days, (now - _LONG_AGO).days))


@dataclass
class Looked:
    """How far a tenant's mail was looked through for content. Up to there, only what is `open` may have any."""

    until: UUID | None = None
    open: set[UUID] = field(default_factory=set)


class Retention:
    """One candidate for the lead."""

    def __init__(self, settings: Settings, store: Store, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._looked: dict[UUID, Looked] = {}

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
        private = {tenant.tenant_id for tenant in tenants if not tenant.keep_bodies}
        self._looked = {tenant_id: self._looked.get(tenant_id, Looked()) for tenant_id in private}
        policies = await self._store.tenant_policies() if private else {}
        for tenant in tenants:
            try:
                if not tenant.keep_bodies:
                    max_age = policies.get(tenant.tenant_id, _AS_THE_REST).max_age_seconds
                    await self._forget_contents(tenant.tenant_id, now, max_age or 0)
                await self._expire(tenant, now, longest)
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

    async def _forget_contents(self, tenant_id: UUID, now: datetime, max_age_seconds: int) -> None:
        looked = self._looked[tenant_id]
        await self._forget_open(looked)
        # Mail that was given up is settled by then. A round that leads for the first time looks no further back: older
        # content goes with its retention.
        tried_seconds = POSTPONED_AGES * max(self._settings.retry_give_up_seconds, max_age_seconds)
        since = now - timedelta(seconds=tried_seconds) - _LATE
        until, after = first_id(now - _LATE_COMMIT), looked.until
        while True:
            found = await self._store.forget_contents(tenant_id, since, after=after)
            FORGOTTEN.labels("contents").inc(found.count)
            until = _remember(looked, found.kept, until)
            if found.after is None:
                break
            after = found.after
            await asyncio.sleep(_PAUSE_SECONDS)
        looked.until = max(until, looked.until or until)

    async def _forget_open(self, looked: Looked) -> None:
        ids = sorted(looked.open)
        for at in range(0, len(ids), _OPEN_BATCH):
            some = ids[at : at + _OPEN_BATCH]
            found = await self._store.forget_contents_of(some)
            FORGOTTEN.labels("contents").inc(found.count)
            looked.open.difference_update(set(some).difference(found.kept))
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _expire(self, tenant: TenantRetention, now: datetime, longest: int) -> None:
        days = tenant.days or self._settings.retention_days
        if not days:
            return
        before = moment_before(now - (_LATE if days == longest else timedelta()), days)
        after: UUID | None = None
        while True:
            count, after = await self._store.expire_messages(tenant.tenant_id, before, after=after)
            FORGOTTEN.labels("messages").inc(count)
            if after is None:
                return
            await asyncio.sleep(_PAUSE_SECONDS)


def _remember(looked: Looked, kept: Sequence[UUID], until: UUID) -> UUID:
    """Keep the ids up to `until`; returns up to where that was possible. What is behind is read again anyway."""
    for envelope_id in kept:  # oldest first
        if envelope_id > until:
            break
        if len(looked.open) >= _OPEN_MOST and envelope_id not in looked.open:
            return UUID(int=envelope_id.int - 1)
        looked.open.add(envelope_id)
    return until
