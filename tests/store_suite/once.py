"""Idempotent submission: what has the same key is stored once."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.model.limits import Placement
from smtp_proxy.model.policy import TenantPolicy
from smtp_proxy.model.submission import SubmissionKey
from store_suite.rows import LEASE, SWEEP_AFTER, Stores, core_envelope, ids_of


async def pass_really(stores: Stores, seconds: float) -> None:
    """By every clock: keys go by the database's."""
    await stores.let_pass(seconds)
    await asyncio.sleep(seconds)


class OnceSuite:
    async def test_the_same_key_is_stored_once(self, stores: Stores) -> None:
        credential = uuid4()
        first, again, other, keyless = (core_envelope(["a@x.example", "b@x.example"]) for _ in range(4))
        key = SubmissionKey(credential, b"k" * 32, 3600)
        keys = {first[0]: key, again[0]: key, other[0]: SubmissionKey(uuid4(), b"k" * 32, 3600)}
        named = await stores.store.accept_once([first, other, keyless], keys, sweep_after_seconds=SWEEP_AFTER)
        assert named == {row[0]: row[0] for row in (first, other, keyless)}
        named = await stores.store.accept_once([again], keys, sweep_after_seconds=SWEEP_AFTER)
        assert named == {again[0]: first[0]}
        assert await stores.store.depth() == 6
        jobs = await stores.store.claim(ids_of([first, again, other, keyless]), uuid4(), LEASE)
        assert sorted(job.envelope.id for job in jobs) == sorted(ids_of([first, other, keyless]))
        assert {job.envelope.body for job in jobs} == {first[5]}
        assert await stores.store.accept_once([], {}, sweep_after_seconds=SWEEP_AFTER) == {}

    async def test_twice_in_one_batch(self, stores: Stores) -> None:
        first, again = core_envelope(), core_envelope()
        keys = {row[0]: SubmissionKey(uuid4(), bytes(32), 60) for row in (first,)}
        keys[again[0]] = keys[first[0]]
        named = await stores.store.accept_once([first, again], keys, sweep_after_seconds=SWEEP_AFTER)
        assert named == {first[0]: first[0], again[0]: first[0]}
        assert await stores.store.depth() == 1

    async def test_raced_duplicates_are_stored_once(self, stores: Stores) -> None:
        credential = uuid4()
        digests = [bytes([n]) * 32 for n in range(5)]
        batches = []
        for turn in range(6):
            rows = [core_envelope() for _ in digests]
            order = digests if turn % 2 else digests[::-1]
            pairs = zip(rows, order, strict=True)
            batches.append((rows, {row[0]: SubmissionKey(credential, digest, 60) for row, digest in pairs}))
        named = await asyncio.gather(
            *(stores.store.accept_once(rows, keys, sweep_after_seconds=SWEEP_AFTER) for rows, keys in batches)
        )
        assert len({first for each in named for first in each.values()}) == len(digests)
        assert await stores.store.depth() == len(digests)

    async def test_held_mail_too(self, stores: Stores) -> None:
        row = core_envelope()
        keys, placements = {row[0]: SubmissionKey(uuid4(), bytes(32), 60)}, {row[0]: Placement(held=True)}
        await stores.store.accept_once([row], keys, sweep_after_seconds=SWEEP_AFTER, placements=placements)
        (delivery,) = (await stores.store.message(ids_of([row])[0])).deliveries
        assert delivery.state is DeliveryState.HELD

    async def test_a_key_expires(self, stores: Stores) -> None:
        first, again = core_envelope(), core_envelope()
        key = SubmissionKey(uuid4(), bytes(32), 1)
        await stores.store.accept_once([first], {first[0]: key}, sweep_after_seconds=SWEEP_AFTER)
        assert await stores.store.forget_submission_keys() == 0
        await pass_really(stores, 1.1)
        named = await stores.store.accept_once([again], {again[0]: key}, sweep_after_seconds=SWEEP_AFTER)
        assert named == {again[0]: again[0]}
        await pass_really(stores, 1.1)
        assert [await stores.store.forget_submission_keys() for _ in range(2)] == [1, 0]

    async def test_who_wants_it(self, stores: Stores) -> None:
        acme = await stores.store.create_tenant("acme")
        assert await stores.store.idempotent_tenants() == {}
        await stores.store.set_tenant_policy("acme", TenantPolicy(idempotency_seconds=60))
        assert await stores.store.idempotent_tenants() == {acme.id: 60}
