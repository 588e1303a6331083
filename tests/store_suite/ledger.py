"""The attempt ledger: what was about to be sent for good when its worker was heard of last."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from smtp_proxy.model.attempt import Outcome, Sending
from smtp_proxy.model.envelope import DeliveryState, Job
from smtp_proxy.model.policy import OnUnknown, TenantPolicy
from store_suite.rows import LEASE, SWEEP_AFTER, TENANT, Stores, attempt_for, core_envelope


def sendings(job: Job, worker: UUID) -> list[Sending]:
    now = datetime.now(UTC)
    of = (job.envelope.id, job.envelope.tenant_id)
    return [Sending(*of, r.number, r.attempt_number, worker, now, "mx.example:25") for r in job.recipients]


async def tenant_that(stores: Stores, on_unknown: OnUnknown) -> UUID:
    tenant = await stores.store.create_tenant("acme")
    await stores.store.set_tenant_policy("acme", TenantPolicy(on_unknown))
    return tenant.id


class LedgerSuite:
    async def test_what_is_about_to_be_sent_is_seen_and_then_recorded(self, stores: Stores) -> None:
        (envelope_id,) = await stores.accepted(core_envelope(["a@x.example", "b@x.example"]))
        worker = uuid4()
        (job,) = await stores.store.claim([envelope_id], worker, LEASE)
        assert await stores.store.sending(sendings(job, worker)) == {(envelope_id, 0), (envelope_id, 1)}
        for delivery in (await stores.store.message(envelope_id)).deliveries:
            (begun,) = delivery.attempts
            assert (delivery.state, delivery.attempt_count) == (DeliveryState.SENDING, 0)
            assert (begun.number, begun.outcome, begun.finished_at) == (1, Outcome.UNKNOWN, None)
            assert (begun.remote, begun.worker_id) == ("mx.example:25", worker)
        assert len(await stores.store.sending(sendings(job, worker))) == 2, "said again within one attempt"
        attempts = [attempt_for(job, worker, Outcome.DELIVERED, recipient=n) for n in (0, 1)]
        assert await stores.store.record(attempts) == 2
        for delivery in (await stores.store.message(envelope_id)).deliveries:
            (ended,) = delivery.attempts
            assert (delivery.state, ended.outcome, ended.reply_code) == (
                DeliveryState.DELIVERED,
                Outcome.DELIVERED,
                250,
            )
            assert ended.finished_at is not None
        assert await stores.store.record(attempts) == 0
        assert await stores.store.sending(sendings(job, worker)) == set()

    async def test_who_lost_the_claim_sends_nothing(self, stores: Stores) -> None:
        (envelope_id,) = await stores.accepted(core_envelope())
        slow, quick = uuid4(), uuid4()
        (job,) = await stores.store.claim([envelope_id], slow, LEASE)
        assert await stores.store.sending(sendings(job, quick)) == set()
        await stores.let_pass(LEASE + 1)
        assert await stores.store.sending(sendings(job, slow)) == set(), "it may be another's in a moment"
        await stores.store.sweep(10, SWEEP_AFTER)
        await stores.store.claim([envelope_id], quick, LEASE)
        assert await stores.store.sending(sendings(job, slow)) == set()
        assert await stores.store.sending([]) == set()

    @pytest.mark.parametrize("left", ["crashed", "released"])
    @pytest.mark.parametrize("on_unknown", OnUnknown)
    async def test_what_was_sent_when_its_worker_ended(self, stores: Stores, on_unknown: OnUnknown, left: str) -> None:
        tenant = await tenant_that(stores, on_unknown)
        sent, unsent = core_envelope(tenant=tenant.bytes), core_envelope(tenant=tenant.bytes)
        ids = await stores.accepted(sent, unsent)
        worker, other = uuid4(), uuid4()
        jobs = {job.envelope.id: job for job in await stores.store.claim(ids, worker, LEASE)}
        await stores.store.sending(sendings(jobs[ids[0]], worker))
        if left == "crashed":
            await stores.let_pass(LEASE + 1)
            assert sorted(await stores.store.sweep(10, SWEEP_AFTER)) == sorted(ids)
        else:
            assert sorted(await stores.store.release(worker)) == sorted(ids)
        (delivery,) = (await stores.store.message(ids[0])).deliveries
        (attempt,) = delivery.attempts
        assert (delivery.attempt_count, attempt.outcome, attempt.number) == (1, Outcome.UNKNOWN, 1)
        assert attempt.finished_at is not None
        (untouched,) = (await stores.store.message(ids[1])).deliveries
        assert (untouched.state, untouched.attempt_count, untouched.attempts) == (DeliveryState.QUEUED, 0, ())
        assert await stores.store.record([attempt_for(jobs[ids[0]], worker, Outcome.DELIVERED)]) == 0

        claimed = {job.envelope.id for job in await stores.store.claim(ids, other, LEASE)}
        if on_unknown is OnUnknown.HOLD:
            assert (delivery.state, claimed) == (DeliveryState.HELD, {ids[1]})
            assert await stores.store.release_held(ids) == [ids[0]]
            (job,) = await stores.store.claim(ids, other, LEASE)
            assert job.recipients[0].attempt_number == 2
        else:
            assert (delivery.state, claimed) == (DeliveryState.QUEUED, set(ids))

    @pytest.mark.parametrize("on_unknown", OnUnknown)
    async def test_no_answer_came_after_the_dot(self, stores: Stores, on_unknown: OnUnknown) -> None:
        tenant = await tenant_that(stores, on_unknown)
        (envelope_id,) = await stores.accepted(core_envelope(tenant=tenant.bytes))
        worker = uuid4()
        (job,) = await stores.store.claim([envelope_id], worker, LEASE)
        await stores.store.sending(sendings(job, worker))
        assert await stores.store.record([attempt_for(job, worker, Outcome.UNKNOWN, retry_in=60)]) == 1
        (delivery,) = (await stores.store.message(envelope_id)).deliveries
        held = on_unknown is OnUnknown.HOLD
        assert delivery.state is (DeliveryState.HELD if held else DeliveryState.QUEUED)
        assert (delivery.attempt_count, [a.outcome for a in delivery.attempts]) == (1, [Outcome.UNKNOWN])
        assert delivery.finished_at is None
        await stores.let_pass(61)
        assert await stores.store.sweep(10, SWEEP_AFTER) == ([] if held else [envelope_id])

    async def test_of_a_tenant_that_is_not_known_it_is_tried_again(self, stores: Stores) -> None:
        (envelope_id,) = await stores.accepted(core_envelope(tenant=TENANT.bytes))
        worker = uuid4()
        (job,) = await stores.store.claim([envelope_id], worker, LEASE)
        await stores.store.sending(sendings(job, worker))
        assert list(await stores.store.release(worker)) == [envelope_id]
        (job,) = await stores.store.claim([envelope_id], worker, LEASE)
        assert job.recipients[0].attempt_number == 2
