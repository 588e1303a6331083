"""Mail in and out: accepting, claiming, recording, leases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from smtp_proxy.errors import AlreadyExists
from smtp_proxy.model.attempt import Attempt, Kind, Outcome, Postponed, RecipientResult
from smtp_proxy.model.dsn import Notify, Ret
from smtp_proxy.model.envelope import BodyType, DeliveryState
from store_suite.rows import CREDENTIAL, LEASE, SWEEP_AFTER, TENANT, Stores, attempt_for, core_envelope


class DeliverySuite:
    # -- accepting and claiming

    async def test_what_was_accepted_is_claimed_as_it_was(self, stores: Stores) -> None:
        body = bytes(range(256)) * 20
        row = core_envelope(["a@example.net", "b@exämple.net"], body, body_type=1, smtputf8=True, tls=False)
        (envelope_id,) = await stores.accepted(row)
        (job,) = await stores.store.claim([envelope_id], uuid4(), LEASE)
        envelope = job.envelope
        assert (envelope.id, envelope.tenant_id, envelope.credential_id) == (envelope_id, TENANT, CREDENTIAL)
        assert envelope.body == body
        assert (envelope.body_type, envelope.smtputf8, envelope.tls) == (BodyType.EIGHT_BIT_MIME, True, False)
        assert (envelope.reverse_path, envelope.helo, envelope.client_address) == (
            "me@example.com",
            "client.example",
            "192.0.2.1",
        )
        assert envelope.received_at == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row[11])
        assert [(r.number, r.address, r.attempt_number) for r in job.recipients] == [
            (0, "a@example.net", 1),
            (1, "b@exämple.net", 1),
        ]

    @pytest.mark.parametrize(
        ("tls", "suite"),
        [(0xC02F, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"), (0x1302, "TLS_AES_256_GCM_SHA384"), (0xFFFF, "0xFFFF"),
         (True, None), (0, None)],
    )  # fmt: skip
    async def test_the_cipher_suite_is_kept(self, stores: Stores, tls: int, suite: str | None) -> None:
        (envelope_id,) = await stores.accepted(core_envelope(tls=tls))
        (job,) = await stores.store.claim([envelope_id], uuid4(), LEASE)
        assert (job.envelope.tls, job.envelope.tls_suite) == (tls != 0, suite)
        summary = (await stores.store.message(envelope_id)).summary
        assert (summary.tls, summary.tls_suite) == (tls != 0, suite)
        (listed,) = await stores.store.list_messages(tenant_id=None, limit=1)
        assert listed.tls_suite == suite

    @pytest.mark.parametrize("size", [1, 48, 49, 300])
    async def test_batches_of_any_size(self, stores: Stores, size: int) -> None:
        batch = [core_envelope([f"{n}@example.net", "x@example.net"], b"%d" % n) for n in range(size)]
        ids = await stores.accepted(*batch)
        assert await stores.store.depth() == 2 * size
        jobs = await stores.store.claim(ids, uuid4(), LEASE)
        assert {job.envelope.id: job.envelope.body for job in jobs} == {i: b"%d" % n for n, i in enumerate(ids)}
        assert await stores.store.depth() == 0

    async def test_the_backlog_is_as_old_as_the_oldest_that_is_due(self, stores: Stores) -> None:
        assert await stores.store.backlog_age_seconds() == 0
        first = await stores.accepted(core_envelope())
        await stores.let_pass(300)
        second = await stores.accepted(core_envelope())
        assert 300 <= await stores.store.backlog_age_seconds() < 360
        await stores.store.claim(first, uuid4(), LEASE)
        assert 0 <= await stores.store.backlog_age_seconds() < 60
        await stores.store.claim(second, uuid4(), LEASE)
        assert await stores.store.backlog_age_seconds() == 0

    @pytest.mark.parametrize("others", [0, 3, 60])
    async def test_what_was_asked_for_with_dsn_is_kept(self, stores: Stores, others: int) -> None:
        """Beside mail that asks for nothing, by one statement and by COPY."""
        asked = core_envelope(
            ["a@x.example", "b@x.example", "c@x.example"],
            dsn=(2, "QQ+2B1", [(0, "rfc822;a+2Bb@x.example"), (None, None), (5, "utf-8;ü@x.example")]),
        )
        half = core_envelope(["a@x.example"], dsn=(None, None, [(2, None)]))
        plain = [core_envelope(["a@x.example", "b@x.example"]) for _ in range(others)]
        ids = await stores.accepted(*plain, asked, half)
        jobs = {job.envelope.id: job for job in await stores.store.claim(ids, uuid4(), LEASE)}
        assert len(jobs) == others + 2
        first, second = (jobs[UUID(bytes=row[0])] for row in (asked, half))
        assert (first.envelope.ret, first.envelope.envid) == (Ret.HDRS, "QQ+2B1")
        assert [(r.address, r.notify, r.orcpt) for r in first.recipients] == [
            ("a@x.example", Notify.NEVER, "rfc822;a+2Bb@x.example"),
            ("b@x.example", None, None),
            ("c@x.example", Notify.SUCCESS | Notify.DELAY, "utf-8;ü@x.example"),
        ]
        assert (second.envelope.ret, second.envelope.envid, second.recipients[0].notify) == (None, None, Notify.FAILURE)
        for row in plain:
            job = jobs[UUID(bytes=row[0])]
            assert (job.envelope.ret, job.envelope.envid) == (None, None)
            assert {(r.notify, r.orcpt) for r in job.recipients} == {(None, None)}
        message = await stores.store.message(UUID(bytes=asked[0]))
        assert (message.ret, message.envid) == (Ret.HDRS, "QQ+2B1")
        assert [(d.notify, d.orcpt) for d in message.deliveries] == [(r.notify, r.orcpt) for r in first.recipients]

    @pytest.mark.parametrize("size", [2, 60])
    async def test_a_batch_is_all_or_nothing(self, stores: Stores, size: int) -> None:
        batch = [core_envelope() for _ in range(size)]
        await stores.accepted(batch[-1])
        with pytest.raises(AlreadyExists):
            await stores.accepted(*batch)
        assert await stores.store.depth() == 1

    async def test_nothing_accepted_is_nothing_done(self, stores: Stores) -> None:
        await stores.accepted()
        assert await stores.store.depth() == 0
        assert await stores.store.claim([], uuid4(), LEASE) == []

    async def test_a_claim_belongs_to_one_worker(self, stores: Stores) -> None:
        ids = await stores.accepted(*(core_envelope() for _ in range(20)))
        claims = await asyncio.gather(*(stores.store.claim(ids, uuid4(), LEASE) for _ in range(4)))
        claimed = [job.envelope.id for jobs in claims for job in jobs]
        assert sorted(claimed) == sorted(ids)

    async def test_unknown_ids_are_passed_over(self, stores: Stores) -> None:
        (envelope_id,) = await stores.accepted(core_envelope())
        jobs = await stores.store.claim([uuid4(), envelope_id, envelope_id], uuid4(), LEASE)
        assert [job.envelope.id for job in jobs] == [envelope_id]

    async def test_a_claim_holds_no_more_than_it_may(self, stores: Stores) -> None:
        ids = await stores.accepted(*(core_envelope(body=b"x" * 1000) for _ in range(5)))
        worker = uuid4()
        first = await stores.store.claim(ids, worker, LEASE, max_bytes=2500)
        assert [job.envelope.id for job in first] == sorted(ids)[:2]
        assert sorted(await stores.store.sweep(100, SWEEP_AFTER)) == sorted(ids)[2:]
        assert len(await stores.store.claim(ids, worker, LEASE, max_bytes=10)) == 1

    # -- recording

    async def test_a_sweep_parts_no_message(self, stores: Stores) -> None:
        """Recipients of one message share a transaction and a report, wherever the limit falls."""
        recipients = tuple(f"r{n}@rcpt.example" for n in range(7))
        ids = await stores.accepted(core_envelope(recipients), core_envelope(recipients))
        worker = uuid4()
        assert len(await stores.store.claim(ids, worker, LEASE)) == 2
        await stores.let_pass(LEASE + 1)
        (first,) = await stores.store.sweep(1, SWEEP_AFTER)
        (job,) = await stores.store.claim([first], worker, LEASE)
        assert [recipient.address for recipient in job.recipients] == list(recipients)
        (second,) = await stores.store.sweep(1, SWEEP_AFTER)
        assert {first, second} == set(ids)

    async def test_delivered_is_final(self, stores: Stores) -> None:
        (envelope_id,) = await stores.accepted(core_envelope())
        worker = uuid4()
        (job,) = await stores.store.claim([envelope_id], worker, LEASE)
        assert await stores.store.record([attempt_for(job, worker, Outcome.DELIVERED)]) == 1
        await stores.let_pass(10 * 86_400)
        assert await stores.store.sweep(10, SWEEP_AFTER) == []
        assert await stores.store.claim([envelope_id], worker, LEASE) == []
        (delivery,) = (await stores.store.message(envelope_id)).deliveries
        assert (delivery.state, delivery.attempt_count, delivery.claimed_by) == (DeliveryState.DELIVERED, 1, None)
        assert delivery.finished_at is not None
        (attempt,) = delivery.attempts
        assert (attempt.number, attempt.outcome, attempt.reply_code, attempt.enhanced_code) == (
            1,
            Outcome.DELIVERED,
            250,
            "2.0.0",
        )
        assert (attempt.reply_text, attempt.remote, attempt.worker_id) == ("so it went", "mx.example:25", worker)

    async def test_deferred_comes_back_when_it_is_due(self, stores: Stores) -> None:
        (envelope_id,) = await stores.accepted(core_envelope())
        worker = uuid4()
        (job,) = await stores.store.claim([envelope_id], worker, LEASE)
        await stores.store.record([attempt_for(job, worker, Outcome.DEFERRED, retry_in=60)])
        assert await stores.store.claim([envelope_id], worker, LEASE) == []
        assert await stores.store.depth() == 0
        assert await stores.store.sweep(10, SWEEP_AFTER) == []
        await stores.let_pass(61)
        assert await stores.store.sweep(10, SWEEP_AFTER) == [envelope_id]
        (again,) = await stores.store.claim([envelope_id], worker, LEASE)
        assert again.recipients[0].attempt_number == 2
        await stores.store.record([attempt_for(again, worker, Outcome.REFUSED)])
        (delivery,) = (await stores.store.message(envelope_id)).deliveries
        assert (delivery.state, [a.outcome for a in delivery.attempts]) == (
            DeliveryState.REFUSED,
            [Outcome.DEFERRED, Outcome.REFUSED],
        )

    async def test_postponed_is_due_later_and_no_attempt(self, stores: Stores) -> None:
        worker, other = uuid4(), uuid4()
        (envelope_id,) = await stores.accepted(core_envelope(["a@example.net", "b@example.net"]))
        (job,) = await stores.store.claim([envelope_id], worker, LEASE)
        due_at = datetime.now(UTC) + timedelta(seconds=40)
        assert await stores.store.postpone([]) == 0
        assert await stores.store.postpone([Postponed(envelope_id, 0, other, due_at)]) == 0
        assert await stores.store.postpone([Postponed(envelope_id, 0, worker, due_at, "mx: 3 wait for it")]) == 1
        assert await stores.store.postpone([Postponed(envelope_id, 0, worker, due_at)]) == 0
        await stores.store.record([attempt_for(job, worker, Outcome.DELIVERED, recipient=1)])
        first, second = (await stores.store.message(envelope_id)).deliveries
        assert (first.state, len(first.attempts), second.state) == (DeliveryState.QUEUED, 0, DeliveryState.DELIVERED)
        assert (first.waits_for, second.waits_for) == ("mx: 3 wait for it", None)
        assert await stores.store.claim([envelope_id], other, LEASE) == []
        await stores.let_pass(41)
        assert await stores.store.sweep(10, SWEEP_AFTER) == [envelope_id]
        (again,) = await stores.store.claim([envelope_id], other, LEASE)
        assert [(r.number, r.attempt_number) for r in again.recipients] == [(0, 1)]
        (first, _) = (await stores.store.message(envelope_id)).deliveries
        assert first.waits_for is None, "it waits for nothing any more"

    async def test_recipients_fare_apart(self, stores: Stores) -> None:
        (envelope_id,) = await stores.accepted(core_envelope(["a@x.example", "b@x.example", "c@x.example"]))
        worker = uuid4()
        (job,) = await stores.store.claim([envelope_id], worker, LEASE)
        recorded = await stores.store.record(
            [
                attempt_for(job, worker, Outcome.DELIVERED, recipient=0),
                attempt_for(job, worker, Outcome.DEFERRED, recipient=1, retry_in=1),
                attempt_for(job, worker, Outcome.REFUSED, recipient=2),
            ]
        )
        assert recorded == 3
        await stores.let_pass(2)
        (again,) = await stores.store.claim([envelope_id], worker, LEASE)
        assert [(r.number, r.attempt_number) for r in again.recipients] == [(1, 2)]

    async def test_who_lost_the_claim_is_not_heard(self, stores: Stores) -> None:
        (envelope_id,) = await stores.accepted(core_envelope())
        slow, quick = uuid4(), uuid4()
        (job,) = await stores.store.claim([envelope_id], slow, LEASE)
        await stores.let_pass(LEASE + 1)
        assert await stores.store.sweep(10, SWEEP_AFTER) == [envelope_id]
        assert await stores.store.record([attempt_for(job, slow, Outcome.DELIVERED)]) == 0
        (taken_over,) = await stores.store.claim([envelope_id], quick, LEASE)
        assert await stores.store.record([attempt_for(job, slow, Outcome.REFUSED)]) == 0
        assert await stores.store.record([attempt_for(taken_over, quick, Outcome.DELIVERED)]) == 1
        (delivery,) = (await stores.store.message(envelope_id)).deliveries
        assert (delivery.state, len(delivery.attempts)) == (DeliveryState.DELIVERED, 1)

    async def test_an_attempt_is_recorded_once(self, stores: Stores) -> None:
        (envelope_id,) = await stores.accepted(core_envelope())
        worker = uuid4()
        (job,) = await stores.store.claim([envelope_id], worker, LEASE)
        attempt = attempt_for(job, worker, Outcome.DELIVERED)
        assert [await stores.store.record([attempt]), await stores.store.record([attempt])] == [1, 0]

    async def test_the_kind_is_kept_with_the_attempt(self, stores: Stores) -> None:
        (envelope_id,) = await stores.accepted(core_envelope())
        worker = uuid4()
        (job,) = await stores.store.claim([envelope_id], worker, LEASE)
        attempt = attempt_for(job, worker, Outcome.DEFERRED, retry_in=60)
        full = replace(attempt, result=replace(attempt.result, kind=Kind.QUOTA))
        assert await stores.store.record([full]) == 1
        (delivery,) = (await stores.store.message(envelope_id)).deliveries
        assert [a.kind for a in delivery.attempts] == [Kind.QUOTA]

    async def test_nothing_to_record(self, stores: Stores) -> None:
        assert await stores.store.record([]) == 0

    async def test_a_reply_from_the_network_can_always_be_kept(self, stores: Stores) -> None:
        (envelope_id,) = await stores.accepted(core_envelope())
        worker = uuid4()
        (job,) = await stores.store.claim([envelope_id], worker, LEASE)
        attempt = attempt_for(job, worker, Outcome.DELIVERED)
        nasty = RecipientResult(0, Outcome.DELIVERED, 250, "2.0.0", "ok\0\udc80" + "x" * 100_000, "mx.example:25")
        changed = Attempt(envelope_id, 1, worker, attempt.started_at, attempt.finished_at, nasty, None)
        assert await stores.store.record([changed]) == 1

    # -- leases and sweeping

    async def test_a_renewed_lease_holds(self, stores: Stores) -> None:
        ids = await stores.accepted(core_envelope(), core_envelope())
        worker = uuid4()
        await stores.store.claim(ids, worker, LEASE)
        await stores.let_pass(LEASE - 5)
        assert await stores.store.renew([*ids, uuid4()], worker, LEASE) == dict.fromkeys(ids, True)
        assert await stores.store.renew(ids, uuid4(), LEASE) == {}
        assert await stores.store.renew([], worker, LEASE) == {}
        await stores.let_pass(10)
        assert await stores.store.sweep(10, SWEEP_AFTER) == []
        await stores.let_pass(LEASE)
        assert sorted(await stores.store.sweep(10, SWEEP_AFTER)) == sorted(ids)

    async def test_what_is_not_named_or_no_longer_claimed_is_not_renewed(self, stores: Stores) -> None:
        ids = await stores.accepted(*(core_envelope() for _ in range(3)), core_envelope(["a@x.example", "b@x.example"]))
        named, other, settled, half = ids
        worker = uuid4()
        jobs = {job.envelope.id: job for job in await stores.store.claim(ids, worker, LEASE)}
        done = [attempt_for(jobs[i], worker, Outcome.DELIVERED) for i in (settled, half)]
        assert await stores.store.record(done) == 2
        await stores.let_pass(LEASE - 5)
        renewed = await stores.store.renew([named, settled, half], worker, LEASE)
        assert renewed == {named: True, half: True}
        await stores.let_pass(10)
        assert await stores.store.sweep(10, SWEEP_AFTER) == [other]

    async def test_what_nobody_took_is_swept_and_then_left_alone(self, stores: Stores) -> None:
        (envelope_id,) = await stores.accepted(core_envelope(["a@x.example", "b@x.example"]))
        assert await stores.store.sweep(10, SWEEP_AFTER) == []
        await stores.let_pass(SWEEP_AFTER + 1)
        assert await stores.store.sweep(10, SWEEP_AFTER) == [envelope_id]
        assert await stores.store.sweep(10, SWEEP_AFTER) == []
        await stores.let_pass(SWEEP_AFTER + 1)
        assert await stores.store.sweep(10, SWEEP_AFTER) == [envelope_id]

    async def test_a_sweep_takes_so_many_at_a_time(self, stores: Stores) -> None:
        ids = await stores.accepted(*(core_envelope() for _ in range(7)))
        await stores.let_pass(SWEEP_AFTER + 1)
        swept = [await stores.store.sweep(3, SWEEP_AFTER) for _ in range(4)]
        assert [len(some) for some in swept] == [3, 3, 1, 0]
        assert sorted(i for some in swept for i in some) == sorted(ids)

    async def test_what_became_due_last_does_not_wait_for_an_old_backlog(self, stores: Stores) -> None:
        old = await stores.accepted(*(core_envelope() for _ in range(20)))
        await stores.let_pass(SWEEP_AFTER + 1)
        (new,) = await stores.accepted(core_envelope())
        await stores.let_pass(SWEEP_AFTER + 1)
        swept = await stores.store.sweep(5, 10 * SWEEP_AFTER)
        assert len(swept) == 5
        assert new in swept
        rest = await stores.store.sweep(100, 10 * SWEEP_AFTER)
        assert sorted([*swept, *rest]) == sorted([*old, new])

    async def test_a_worker_that_leaves_gives_back(self, stores: Stores) -> None:
        ids = await stores.accepted(*(core_envelope() for _ in range(3)))
        leaving, staying = uuid4(), uuid4()
        jobs = await stores.store.claim(ids[:2], leaving, LEASE)
        await stores.store.claim(ids[2:], staying, LEASE)
        await stores.store.record([attempt_for(jobs[0], leaving, Outcome.DELIVERED)])
        assert list(await stores.store.release(leaving)) == [jobs[1].envelope.id]
        assert [job.envelope.id for job in await stores.store.claim(ids, staying, LEASE)] == [jobs[1].envelope.id]

    async def test_one_leads(self, stores: Stores) -> None:
        first, second, other = (stores.store.leader(name) for name in ("sweeper", "sweeper", "partitions"))
        async with first, second, other:
            assert not first.held
            assert await first.try_acquire()
            assert await first.try_acquire()
            assert not await second.try_acquire()
            assert await other.try_acquire()
            assert (first.held, second.held, other.held) == (True, False, True)
            await first.release()
            assert not first.held
            assert await second.try_acquire()
        assert not second.held
