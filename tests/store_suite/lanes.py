"""Priority lanes: kept with the message, swept each by itself, set for tenants and credentials."""

from __future__ import annotations

from uuid import uuid4

import pytest

from smtp_proxy.errors import NotFound
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.limits import Placement
from smtp_proxy.model.policy import TenantPolicy
from smtp_proxy.store.accept import encode
from store_suite.rows import LEASE, SWEEP_AFTER, Stores, core_envelope, ids_of


class LaneSuite:
    @pytest.mark.parametrize("way", ["rows", "encoded", "once", "placed"])
    async def test_the_lane_is_kept_whatever_the_way_in(self, stores: Stores, way: str) -> None:
        batch = [core_envelope(["a@x.example", "b@x.example"], lane=lane) for lane in (0, 1)]
        ids = ids_of(batch)
        match way:
            case "rows":
                await stores.store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
            case "encoded":
                await stores.store.accept_encoded(
                    lambda sweep_at_us: encode(batch, sweep_at_us), 2, sweep_after_seconds=SWEEP_AFTER
                )
            case "once":
                await stores.store.accept_once(batch, {}, sweep_after_seconds=SWEEP_AFTER)
            case _:
                held = {batch[1][0]: Placement(held=True)}
                await stores.store.accept(batch, sweep_after_seconds=SWEEP_AFTER, placements=held)
                await stores.store.release_held(ids)
        jobs = {job.envelope.id: job for job in await stores.store.claim(ids, uuid4(), LEASE)}
        assert [jobs[i].lane for i in ids] == [Lane.TRANSACTIONAL, Lane.BULK]
        assert [(await stores.store.message(i)).summary.lane for i in ids] == [Lane.TRANSACTIONAL, Lane.BULK]
        listed = {summary.id: summary.lane for summary in await stores.store.list_messages(limit=2)}
        assert listed == dict(zip(ids, Lane, strict=True))

    async def test_each_lane_is_swept_by_itself(self, stores: Stores) -> None:
        bulk = await stores.accepted(*(core_envelope(lane=1) for _ in range(30)))
        first = await stores.accepted(*(core_envelope() for _ in range(3)))
        await stores.let_pass(SWEEP_AFTER)
        assert sorted(await stores.store.sweep(10, SWEEP_AFTER)) == sorted(first), "bulk is not in the way"
        assert len(await stores.store.sweep(20, SWEEP_AFTER, Lane.BULK)) == 20
        assert len(await stores.store.sweep(20, SWEEP_AFTER, Lane.BULK)) == 10
        assert await stores.store.sweep(20, SWEEP_AFTER) == []
        assert await stores.store.depth() == len(bulk) + len(first)

    async def test_a_lane_of_a_later_release_is_swept_with_what_is_transactional(self, stores: Stores) -> None:
        """It was in no lane that anybody swept, and lay until a release came that knew it."""
        unknown = await stores.accepted(core_envelope(lane=7), core_envelope(lane=2))
        await stores.let_pass(SWEEP_AFTER)
        assert await stores.store.sweep(10, SWEEP_AFTER, Lane.BULK) == []
        assert sorted(await stores.store.sweep(10, SWEEP_AFTER)) == sorted(unknown)
        jobs = await stores.store.claim(unknown, uuid4(), LEASE)
        assert [job.lane for job in jobs] == [Lane.TRANSACTIONAL] * 2

    async def test_what_is_released_says_its_lane(self, stores: Stores) -> None:
        ids = await stores.accepted(core_envelope(), core_envelope(lane=1))
        worker = uuid4()
        await stores.store.claim(ids, worker, LEASE)
        assert await stores.store.release(worker) == dict(zip(ids, Lane, strict=True))

    async def test_tenants_and_credentials_have_lanes(self, stores: Stores) -> None:
        name, username = f"lanes-{uuid4()}", f"lanes-{uuid4()}"
        tenant = await stores.store.create_tenant(name)
        credential = await stores.store.create_credential(tenant.id, username, "hash")
        before = await stores.store.lanes()
        assert credential.lane is None
        assert not {tenant.id, credential.id} & before.keys()
        policy = await stores.store.set_tenant_policy(name, TenantPolicy(lane=Lane.BULK))
        assert policy.lane is Lane.BULK
        assert (await stores.store.tenant_policy(name)).lane is Lane.BULK
        changed = await stores.store.set_credential_lane(username, Lane.TRANSACTIONAL)
        assert changed.lane is Lane.TRANSACTIONAL
        wanted = before | {tenant.id: Lane.BULK, credential.id: Lane.TRANSACTIONAL}
        assert await stores.store.lanes() == wanted
        assert (await stores.store.set_credential_lane(username, None)).lane is None
        with pytest.raises(NotFound):
            await stores.store.set_credential_lane("nobody", Lane.BULK)
        await stores.store.set_tenant_policy(name, TenantPolicy())
        assert await stores.store.lanes() == before
