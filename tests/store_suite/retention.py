"""What is no longer kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from smtp_proxy.config import Settings
from smtp_proxy.errors import NotFound
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.limits import Placement
from smtp_proxy.model.retention import Retention
from smtp_proxy.model.webhook import Told, Webhook
from smtp_proxy.sealing import Sealed
from store_suite.rows import LEASE, SWEEP_AFTER, Stores, attempt_for, core_envelope


class Shelf:
    """A tenant and its mail."""

    def __init__(self, stores: Stores, tenant: UUID) -> None:
        self.store, self.tenant, self._stores = stores.store, tenant, stores
        self.worker = uuid4()

    @classmethod
    async def made(cls, stores: Stores) -> Shelf:
        return cls(stores, (await stores.store.create_tenant("acme")).id)

    async def mail(self, *outcomes: Outcome | None, **row: Any) -> UUID:
        """One message with a recipient for each; None: it stays queued."""
        recipients = [f"{n}@rcpt.example" for n in range(len(outcomes))]
        (envelope_id,) = await self._stores.accepted(core_envelope(recipients, tenant=self.tenant.bytes, **row))
        await self.settle(envelope_id, *outcomes)
        return envelope_id

    async def settle(self, envelope_id: UUID, *outcomes: Outcome | None) -> None:
        (job,) = await self.store.claim([envelope_id], self.worker, LEASE)
        attempts = [
            attempt_for(
                job, self.worker, outcome, recipient=r.number, retry_in=-60.0 if outcome is Outcome.DEFERRED else None
            )
            for r, outcome in zip(job.recipients, outcomes, strict=True)
            if outcome is not None
        ]
        await self.store.record(attempts)
        if None in outcomes:
            await self.store.release(self.worker)

    async def left(self) -> set[UUID]:
        return {summary.id for summary in await self.store.list_messages(tenant_id=self.tenant)}

    async def has_content(self, envelope_id: UUID) -> bool:
        """As far as the outside sees: what is looked for in the store."""
        return bool((await self.store.forget_contents(self.tenant, datetime(2020, 1, 1, tzinfo=UTC))).count)


SOON = timedelta(minutes=1)
GIVE_UP = Settings.load({}, {}).webhook_give_up_seconds


class RetentionSuite:
    async def test_retention_of_tenants(self, stores: Stores) -> None:
        shelf = await Shelf.made(stores)
        assert await stores.store.tenant_retention("acme") == Retention(shelf.tenant)
        changed = Retention(shelf.tenant, 7, keep_bodies=False)
        await stores.store.set_retention(changed)
        assert await stores.store.retentions() == [changed]
        await stores.store.set_retention(replace(changed, days=None))
        assert (await stores.store.tenant_retention("acme")).days is None
        with pytest.raises(NotFound):
            await stores.store.tenant_retention("nobody")

    async def test_settled_mail_goes_and_open_mail_stays(self, stores: Stores) -> None:
        shelf = await Shelf.made(stores)
        store, now = stores.store, datetime.now(UTC)
        settled = await shelf.mail(Outcome.DELIVERED, Outcome.REFUSED)
        half, deferred = await shelf.mail(Outcome.DELIVERED, None), await shelf.mail(Outcome.DEFERRED)
        held = core_envelope(tenant=shelf.tenant.bytes)
        await store.accept([held], sweep_after_seconds=SWEEP_AFTER, placements={held[0]: Placement(held=True)})
        assert await store.expire_messages(shelf.tenant, now - timedelta(days=1)) == (0, None)
        assert await store.expire_messages(uuid4(), now + SOON) == (0, None)
        assert await store.expire_messages(shelf.tenant, now + SOON) == (1, None)
        assert await shelf.left() == {half, deferred, UUID(bytes=held[0])}
        with pytest.raises(NotFound):
            await store.message(settled)
        await shelf.settle(deferred, Outcome.DELIVERED)
        assert await store.expire_messages(shelf.tenant, now + SOON) == (1, None)

    async def test_mail_stays_until_its_webhook_is_told_or_given_up(self, stores: Stores) -> None:
        shelf = await Shelf.made(stores)
        store, soon = stores.store, datetime.now(UTC) + SOON
        webhook = Webhook(uuid4(), shelf.tenant, "https://x.example/", (), Sealed("k1", b"sealed"), datetime.now(UTC))
        await store.add_webhook(webhook)
        first, last = [await shelf.mail(Outcome.DELIVERED) for _ in range(2)]
        assert await store.expire_messages(shelf.tenant, soon) == (0, None)
        told, _ = await store.due_events(webhook.id, 10)
        await store.settle_events([Told(told)])
        assert await store.expire_messages(shelf.tenant, soon) == (1, None)
        assert await shelf.left() == {first, last} - {told.envelope_id}
        await stores.let_pass(GIVE_UP + 60.0)
        assert await store.expire_messages(shelf.tenant, soon) == (1, None)
        assert await store.due_events(webhook.id, 10) == []

    async def test_batches_go_on_behind_what_stays(self, stores: Stores) -> None:
        shelf = await Shelf.made(stores)
        kept = [await shelf.mail(None) for _ in range(3)]
        for _ in range(3):
            await shelf.mail(Outcome.DELIVERED)
        counts, after = [], None
        while True:
            before = datetime.now(UTC) + SOON
            count, after = await stores.store.expire_messages(shelf.tenant, before, after=after, limit=2)
            counts.append(count)
            if after is None:
                break
        assert sum(counts) == 3
        assert await shelf.left() == set(kept)

    @pytest.mark.parametrize("size", [10, 50_000])
    async def test_without_kept_bodies_content_goes_with_the_last_recipient(self, stores: Stores, size: int) -> None:
        shelf = await Shelf.made(stores)
        body = b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n" + b"line\r\n" * (size // 6)
        kept = await shelf.mail(Outcome.DELIVERED, body=body)
        assert await shelf.has_content(kept), "kept until it is asked otherwise"
        await stores.store.set_retention(Retention(shelf.tenant, keep_bodies=False))
        half = await shelf.mail(Outcome.DELIVERED, None, body=body)
        (job,) = await stores.store.claim([half], shelf.worker, LEASE)
        assert job.envelope.body == body, "one recipient waits for it"
        await stores.store.record([attempt_for(job, shelf.worker, Outcome.REFUSED, recipient=1)])
        assert not await shelf.has_content(half)
        assert (await stores.store.message(half)).summary.id == half
