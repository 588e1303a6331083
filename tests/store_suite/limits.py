"""Tenants with limits, and their mail that is held or put off."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from smtp_proxy.errors import AlreadyExists, NotFound
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.model.limits import AtLimit, Held, Placement, TenantLimits
from store_suite.rows import LEASE, SWEEP_AFTER, TENANT, Stores, core_envelope, ids_of


async def released(stores: Stores, *tenant: UUID) -> int:
    return sum([count async for count in stores.store.release_all_held(*tenant)])


class LimitSuite:
    @pytest.mark.parametrize("others", [0, 2, 60])
    async def test_held_mail_waits_until_it_is_released(self, stores: Stores, others: int) -> None:
        held = core_envelope(["a@x.example", "b@x.example"])
        ready = [core_envelope() for _ in range(others)]
        placements = {held[0]: Placement(held=True), bytes(16): Placement(held=True)}
        await stores.store.accept([*ready, held], sweep_after_seconds=SWEEP_AFTER, placements=placements)
        (envelope_id,) = ids_of([held])
        assert await stores.store.depth() == others
        await stores.let_pass(10 * 86_400)
        assert sorted(await stores.store.sweep(1000, SWEEP_AFTER)) == sorted(ids_of(ready))
        assert await stores.store.claim([envelope_id], uuid4(), LEASE) == []
        summaries = await stores.store.list_messages(state=DeliveryState.HELD)
        assert [(s.id, s.states) for s in summaries] == [(envelope_id, (DeliveryState.HELD,) * 2)]

        assert await stores.store.release_held([uuid4()]) == []
        assert await stores.store.release_held([envelope_id, *ids_of(ready)]) == [envelope_id]
        assert await stores.store.sweep(10, SWEEP_AFTER) == [envelope_id]
        (job,) = await stores.store.claim([envelope_id], uuid4(), LEASE)
        assert len(job.recipients) == 2
        assert await stores.store.release_held([envelope_id]) == []

    async def test_held_mail_of_one_tenant_is_released(self, stores: Stores) -> None:
        other = core_envelope(tenant=uuid4().bytes)
        batch = [core_envelope(), core_envelope(), other]
        held = {row[0]: Placement(held=True) for row in batch}
        await stores.store.accept(batch, sweep_after_seconds=SWEEP_AFTER, placements=held)
        assert await stores.store.held_by_tenant() == {
            TENANT: Held(2, len(batch[0][5]) * 2),
            UUID(bytes=other[1]): Held(1, len(other[5])),
        }
        assert await released(stores, TENANT) == 2
        assert sorted(await stores.store.sweep(10, SWEEP_AFTER)) == sorted(ids_of(batch[:2]))
        assert await released(stores, TENANT) == 0
        assert await released(stores) == 1
        assert await stores.store.held_by_tenant() == {}

    async def test_held_mail_is_released_in_batches_oldest_first(self, stores: Stores) -> None:
        batch = [core_envelope(["a@x.example", "b@x.example", "c@x.example"]) for _ in range(7)]
        held = {row[0]: Placement(held=True) for row in batch}
        await stores.store.accept(batch, sweep_after_seconds=SWEEP_AFTER, placements=held)
        counts = []
        async for count in stores.store.release_all_held(TENANT, batch=6):
            counts.append(count)
            if len(counts) == 2:
                due = await stores.store.sweep(100, SWEEP_AFTER)
                assert sorted(due) == sorted(ids_of(batch))[: sum(counts)], "whole messages, the oldest"
        assert (sum(counts), len(counts) > 3) == (7, True)

    @pytest.mark.parametrize("state", [DeliveryState.QUEUED, DeliveryState.HELD])
    async def test_few_in_a_state_are_listed_by_pages(self, stores: Stores, state: DeliveryState) -> None:
        batch = [core_envelope() for _ in range(5)]
        held = {row[0]: Placement(held=state is DeliveryState.HELD) for row in batch}
        await stores.store.accept(batch, sweep_after_seconds=SWEEP_AFTER, placements=held)
        newest_first = sorted(ids_of(batch), reverse=True)
        page = await stores.store.list_messages(state=state, limit=2)
        assert [s.id for s in page] == newest_first[:2]
        page = await stores.store.list_messages(state=state, limit=9, before=page[-1].id, tenant_id=TENANT)
        assert [s.id for s in page] == newest_first[2:]

    async def test_delayed_mail_leaves_later(self, stores: Stores) -> None:
        delayed, ready = core_envelope(), core_envelope()
        placements = {delayed[0]: Placement(delay_seconds=120)}
        await stores.store.accept([delayed, ready], sweep_after_seconds=SWEEP_AFTER, placements=placements)
        assert await stores.store.depth() == 1
        claimed = await stores.store.claim(ids_of([delayed, ready]), uuid4(), LEASE)
        assert [job.envelope.id for job in claimed] == ids_of([ready])
        await stores.let_pass(100)
        assert ids_of([delayed])[0] not in await stores.store.sweep(10, SWEEP_AFTER)
        await stores.let_pass(21)
        assert ids_of([delayed])[0] in await stores.store.sweep(10, SWEEP_AFTER)
        assert len(await stores.store.claim(ids_of([delayed]), uuid4(), LEASE)) == 1

    async def test_a_placed_batch_is_all_or_nothing(self, stores: Stores) -> None:
        held, twice = core_envelope(), core_envelope()
        await stores.accepted(twice)
        with pytest.raises(AlreadyExists):
            await stores.store.accept(
                [held, twice], sweep_after_seconds=SWEEP_AFTER, placements={held[0]: Placement(held=True)}
            )
        assert await stores.store.list_messages(state=DeliveryState.HELD) == []

    async def test_limits_of_tenants(self, stores: Stores) -> None:
        acme = await stores.store.create_tenant("acme")
        await stores.store.create_tenant("free")
        assert acme.limits == TenantLimits()
        assert await stores.store.limited_tenants() == []
        for limits in (
            TenantLimits(sessions=3),
            TenantLimits(100, 1000, 5, AtLimit.HOLD),
            TenantLimits(recipients_per_minute=1, at_limit=AtLimit.DELAY),
        ):
            changed = await stores.store.set_tenant_limits("acme", limits)
            assert (changed.id, changed.limits) == (acme.id, limits)
            assert await stores.store.limited_tenants() == [changed] == [await stores.store.tenant_by_name("acme")]
        await stores.store.set_tenant_limits("acme", TenantLimits())
        assert await stores.store.limited_tenants() == []
        with pytest.raises(NotFound):
            await stores.store.set_tenant_limits("nobody", TenantLimits())
