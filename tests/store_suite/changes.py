"""Mail that an operator holds, releases or cancels."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.change import Change
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.worker.retry import RetryPolicy, counted
from store_suite.rows import LEASE, SWEEP_AFTER, TENANT, Stores, attempt_for, core_envelope, ids_of


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

    @pytest.mark.parametrize("of_tenant", [False, True])
    async def test_what_was_held_has_its_time_anew(self, stores: Stores, of_tenant: bool) -> None:
        policy = RetryPolicy(60.0, 2.0, 3600.0, 0.0, give_up_seconds=4 * 86_400.0)
        row, worker = core_envelope(), uuid4()
        (envelope_id,) = await stores.accepted(row)
        (job,) = await stores.store.claim([envelope_id], worker, LEASE)
        await stores.store.record([attempt_for(job, worker, Outcome.DEFERRED, retry_in=9)])
        assert await stores.store.change(Change.HOLD, [envelope_id]) == [envelope_id]
        if of_tenant:
            assert sum([count async for count in stores.store.release_all_held(TENANT)]) == 1
        else:
            assert await stores.store.release_held([envelope_id]) == [envelope_id]
        (job,) = await stores.store.claim([envelope_id], worker, LEASE)
        (recipient,) = job.recipients
        assert (recipient.attempt_number, recipient.replayed_attempts) == (2, 1)
        assert recipient.replayed_at is not None

        old = replace(job.envelope, received_at=recipient.replayed_at - timedelta(days=6))
        attempt_number, since = counted(old, recipient)
        result, again_at = policy.settle(
            attempt_for(job, worker, Outcome.DEFERRED, retry_in=9).result,
            attempt_number=attempt_number,
            received_at=since,
            now=recipient.replayed_at + timedelta(seconds=1),
            random=lambda: 0.5,
        )
        assert result.outcome is Outcome.DEFERRED, "it is 6 days old, and was tried for a second since it was released"
        assert again_at == recipient.replayed_at + timedelta(seconds=61), "as after a first attempt"

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

    async def test_what_a_worker_has_in_hand_is_counted(self, stores: Stores) -> None:
        tenant = uuid4()
        mine = [core_envelope(["a@x.example", "b@x.example"], tenant=tenant.bytes) for _ in range(3)]
        other = core_envelope()
        await stores.accepted(*mine, other)
        first, second, third = ids_of(mine)
        assert await stores.store.in_hand(tenant_id=tenant) == 0
        worker = uuid4()
        assert len(await stores.store.claim([first, second, *ids_of([other])], worker, LEASE)) == 3
        assert await stores.store.in_hand(tenant_id=tenant) == 2
        assert await stores.store.in_hand(envelope_ids=[first, third]) == 1
        assert await stores.store.in_hand(envelope_ids=[]) == 0
        assert await stores.store.in_hand() == 3
        assert sum([n async for n in stores.store.change_all(Change.CANCEL, tenant)]) == 1
        await stores.store.release(worker)
        assert await stores.store.in_hand(tenant_id=tenant) == 0

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
