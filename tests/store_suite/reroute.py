"""Queued and held mail that an operator sends another way."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.change import Change, Reroute
from smtp_proxy.model.envelope import DeliveryState
from store_suite.rows import LEASE, SWEEP_AFTER, Stores, attempt_for, core_envelope, ids_of

SPARE = Reroute("spare")


async def routes(stores: Stores, envelope_id: UUID) -> list[str | None]:
    return [delivery.route for delivery in (await stores.store.message(envelope_id)).deliveries]


async def deferred(stores: Stores, *recipients: str) -> UUID:
    (envelope_id,) = await stores.accepted(core_envelope(list(recipients)))
    worker = uuid4()
    (job,) = await stores.store.claim([envelope_id], worker, LEASE)
    await stores.store.record([
        attempt_for(job, worker, Outcome.DEFERRED, recipient=n, retry_in=3600) for n in range(len(recipients))
    ])  # fmt: skip
    return envelope_id


class RerouteSuite:
    async def test_what_was_deferred_is_due_now_by_the_new_route(self, stores: Stores) -> None:
        envelope_id = await deferred(stores, "a@x.example", "b@x.example")
        assert await stores.store.claim([envelope_id], uuid4(), LEASE) == []
        assert await stores.store.reroute(SPARE, [envelope_id, uuid4()]) == [envelope_id]
        assert await stores.store.sweep(10, SWEEP_AFTER) == [envelope_id]
        (job,) = await stores.store.claim([envelope_id], uuid4(), LEASE)
        assert [recipient.route for recipient in job.recipients] == ["spare", "spare"]
        assert await stores.store.reroute(Reroute(None), [envelope_id]) == [], "a worker has it"
        assert await routes(stores, envelope_id) == ["spare", "spare"]

    async def test_back_to_what_the_routes_say(self, stores: Stores) -> None:
        envelope_id = await deferred(stores, "a@x.example")
        await stores.store.reroute(SPARE, [envelope_id])
        await stores.store.reroute(Reroute(None), [envelope_id])
        (job,) = await stores.store.claim([envelope_id], uuid4(), LEASE)
        assert job.recipients[0].route is None

    async def test_what_is_held_stays_so(self, stores: Stores) -> None:
        (envelope_id,) = await stores.accepted(core_envelope())
        await stores.store.change(Change.HOLD, [envelope_id])
        held = Reroute("spare", (DeliveryState.HELD,))
        assert await stores.store.reroute(held, [envelope_id]) == [envelope_id]
        assert await stores.store.claim([envelope_id], uuid4(), LEASE) == []
        await stores.store.change(Change.RELEASE, [envelope_id])
        (job,) = await stores.store.claim([envelope_id], uuid4(), LEASE)
        assert job.recipients[0].route == "spare"

    async def test_only_some_of_it(self, stores: Stores) -> None:
        mixed = await deferred(stores, "a@X.example", "b@y.example", "c@sub.x.example")
        (fresh,) = await stores.accepted(core_envelope(["a@x.example"]))
        there = Reroute("spare", (DeliveryState.QUEUED,), deferred_alone=True, domains=("x.example",))
        assert await stores.store.reroute(there, [mixed, fresh]) == [mixed]
        assert await routes(stores, mixed) == ["spare", None, None]
        assert await routes(stores, fresh) == [None]
        assert await stores.store.reroute(there, []) == []

    @pytest.mark.parametrize("domain", ["b\u00fccher.example", "xn--bcher-kva.EXAMPLE"])
    async def test_a_domain_is_one_in_any_spelling(self, stores: Stores, domain: str) -> None:
        spelt = ("a@B\u00dcCHER.example", "b@b\u00fccher.example", "c@XN--bcher-kva.example", "d@bucher.example")
        mixed = await deferred(stores, *spelt)
        assert await stores.store.reroute(Reroute("spare", domains=(domain,)), [mixed]) == [mixed]
        assert await routes(stores, mixed) == ["spare", "spare", "spare", None]

    async def test_what_was_never_tried_keeps_its_time(self, stores: Stores) -> None:
        (envelope_id,) = await stores.accepted(core_envelope())
        before = (await stores.store.message(envelope_id)).deliveries[0].next_attempt_at
        assert await stores.store.reroute(SPARE, [envelope_id]) == [envelope_id]
        delivery = (await stores.store.message(envelope_id)).deliveries[0]
        assert (delivery.next_attempt_at, delivery.route) == (before, "spare")
        assert before <= datetime.now(UTC)

    async def test_all_of_a_tenant_in_batches(self, stores: Stores) -> None:
        tenant, other = uuid4(), core_envelope()
        batch = [core_envelope(tenant=tenant.bytes) for _ in range(5)]
        await stores.accepted(*batch, other)
        counts = [count async for count in stores.store.reroute_all(SPARE, tenant, batch=2)]
        assert counts == [2, 2, 1, 0]
        assert [await routes(stores, i) for i in ids_of(batch)] == [["spare"]] * 5
        assert await routes(stores, ids_of([other])[0]) == [None]
