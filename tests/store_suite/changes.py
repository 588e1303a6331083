"""Mail that an operator holds, releases or cancels."""

from __future__ import annotations

from uuid import UUID, uuid4

from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.change import Change
from smtp_proxy.model.envelope import DeliveryState
from store_suite.rows import LEASE, SWEEP_AFTER, Stores, attempt_for, core_envelope, ids_of


async def states(stores: Stores, envelope_id: UUID) -> list[DeliveryState]:
    return [delivery.state for delivery in (await stores.store.message(envelope_id)).deliveries]


class ChangeSuite:
    async def test_held_by_hand_and_released(self, stores: Stores) -> None:
        (envelope_id,) = await stores.accepted(core_envelope(["a@x.example", "b@x.example"]))
        assert await stores.store.change(Change.HOLD, [envelope_id, uuid4()]) == [envelope_id]
        assert await stores.store.change(Change.HOLD, [envelope_id]) == []
        await stores.let_pass(86_400)
        assert await stores.store.sweep(10, SWEEP_AFTER) == []
        assert await stores.store.claim([envelope_id], uuid4(), LEASE) == []
        assert await stores.store.change(Change.RELEASE, [envelope_id]) == [envelope_id]
        assert len(await stores.store.claim([envelope_id], uuid4(), LEASE)) == 1
        assert await stores.store.change(Change.HOLD, []) == []

    async def test_cancelled_is_final_and_leaves_the_others(self, stores: Stores) -> None:
        (envelope_id,) = await stores.accepted(core_envelope(["a@x.example", "b@x.example", "c@x.example"]))
        worker = uuid4()
        (job,) = await stores.store.claim([envelope_id], worker, LEASE)
        deferred = attempt_for(job, worker, Outcome.DEFERRED, recipient=1, retry_in=9)
        await stores.store.record([attempt_for(job, worker, Outcome.DELIVERED), deferred])
        assert await stores.store.change(Change.CANCEL, [envelope_id]) == [envelope_id]
        expected = [DeliveryState.DELIVERED, DeliveryState.CANCELLED, DeliveryState.SENDING]
        assert await states(stores, envelope_id) == expected
        cancelled = (await stores.store.message(envelope_id)).deliveries[1]
        assert (cancelled.finished_at is not None, len(cancelled.attempts)) == (True, 1)
        assert await stores.store.change(Change.RELEASE, [envelope_id]) == []
        assert await stores.store.record([attempt_for(job, worker, Outcome.DELIVERED, recipient=2)]) == 1
        await stores.let_pass(86_400)
        assert await stores.store.sweep(10, SWEEP_AFTER) == []

    async def test_all_of_a_tenant(self, stores: Stores) -> None:
        tenant, other = uuid4(), core_envelope()
        batch = [core_envelope(tenant=tenant.bytes) for _ in range(5)]
        await stores.accepted(*batch, other)
        counts = [count async for count in stores.store.change_all(Change.HOLD, tenant, batch=2)]
        assert counts == [2, 2, 1, 0]
        assert await stores.store.depth() == 1
        assert sum([count async for count in stores.store.change_all(Change.CANCEL, tenant)]) == 5
        assert [await states(stores, i) for i in ids_of(batch)] == [[DeliveryState.CANCELLED]] * 5
        assert await states(stores, ids_of([other])[0]) == [DeliveryState.QUEUED]
