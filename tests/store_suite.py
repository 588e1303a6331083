"""What every store must do: the same suite runs on Postgres and on `store.memory`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any
from uuid import UUID, uuid4

import pytest

from smtp_proxy.errors import AlreadyExists, NotFound
from smtp_proxy.model.attempt import Attempt, Outcome, RecipientResult
from smtp_proxy.model.dsn import Notify, Ret
from smtp_proxy.model.envelope import BodyType, DeliveryState, Job
from smtp_proxy.model.limits import AtLimit, Held, Placement, TenantLimits
from smtp_proxy.store.ids import new_id

TENANT = UUID("019aba2c-8f1e-7c3a-9d3e-000000000001")
CREDENTIAL = UUID("019aba2c-8f1e-7c3a-9d3e-000000000002")
LEASE = 30.0
SWEEP_AFTER = 15.0


def core_envelope(
    recipients: Sequence[str] = ("you@example.net",), body: bytes = b"Subject: x\r\n\r\nhi\r\n", **changes: Any
) -> tuple:
    """A row as the border hands it over."""
    row = {
        "id": new_id(datetime.now(UTC)).bytes,
        "tenant": TENANT.bytes,
        "credential": CREDENTIAL.bytes,
        "reverse_path": "me@example.com",
        "recipients": list(recipients),
        "body": body,
        "body_type": 0,
        "smtputf8": False,
        "helo": "client.example",
        "client_address": "192.0.2.1",
        "tls": True,
        "received_at_us": int(time.time() * 1e6),
        "dsn": None,
    }
    return tuple({**row, **changes}.values())


def ids_of(batch: Sequence[tuple]) -> list[UUID]:
    return [UUID(bytes=row[0]) for row in batch]


def attempt_for(
    job: Job, worker: UUID, outcome: Outcome, *, recipient: int = 0, retry_in: float | None = None
) -> Attempt:
    now = datetime.now(UTC)
    claimed = next(r for r in job.recipients if r.number == recipient)
    code = {Outcome.DELIVERED: 250, Outcome.DEFERRED: 451, Outcome.REFUSED: 550}[outcome]
    result = RecipientResult(recipient, outcome, code, f"{code // 100}.0.0", "so it went", "mx.example:25")
    next_at = now + timedelta(seconds=retry_in) if retry_in is not None else None
    return Attempt(job.envelope.id, claimed.attempt_number, worker, now, now, result, next_at)


@dataclass
class Stores:
    """The store under test and a way to let time pass for what it keeps."""

    store: Any
    let_pass: Callable[[float], Awaitable[None]]

    async def accepted(self, *batch: tuple) -> list[UUID]:
        await self.store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
        return ids_of(batch)


async def released(stores: Stores, *tenant: UUID) -> int:
    return sum([count async for count in stores.store.release_all_held(*tenant)])


class StoreSuite:
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

    @pytest.mark.parametrize("size", [1, 48, 49, 300])
    async def test_batches_of_any_size(self, stores: Stores, size: int) -> None:
        batch = [core_envelope([f"{n}@example.net", "x@example.net"], b"%d" % n) for n in range(size)]
        ids = await stores.accepted(*batch)
        assert await stores.store.depth() == 2 * size
        jobs = await stores.store.claim(ids, uuid4(), LEASE)
        assert {job.envelope.id: job.envelope.body for job in jobs} == {i: b"%d" % n for n, i in enumerate(ids)}
        assert await stores.store.depth() == 0

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
        assert await stores.store.renew(worker, LEASE) == 2
        assert await stores.store.renew(uuid4(), LEASE) == 0
        await stores.let_pass(10)
        assert await stores.store.sweep(10, SWEEP_AFTER) == []
        await stores.let_pass(LEASE)
        assert sorted(await stores.store.sweep(10, SWEEP_AFTER)) == sorted(ids)

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

    async def test_a_worker_that_leaves_gives_back(self, stores: Stores) -> None:
        ids = await stores.accepted(*(core_envelope() for _ in range(3)))
        leaving, staying = uuid4(), uuid4()
        jobs = await stores.store.claim(ids[:2], leaving, LEASE)
        await stores.store.claim(ids[2:], staying, LEASE)
        await stores.store.record([attempt_for(jobs[0], leaving, Outcome.DELIVERED)])
        assert await stores.store.release(leaving) == [jobs[1].envelope.id]
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

    # -- limited tenants' mail

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

    # -- tenants and credentials

    async def test_tenants(self, stores: Stores) -> None:
        acme = await stores.store.create_tenant("acme")
        await stores.store.create_tenant("abc")
        assert [tenant.name for tenant in await stores.store.list_tenants()] == ["abc", "acme"]
        assert await stores.store.tenant_by_name("acme") == acme
        with pytest.raises(AlreadyExists):
            await stores.store.create_tenant("acme")
        with pytest.raises(NotFound):
            await stores.store.tenant_by_name("nobody")

    async def test_credentials(self, stores: Stores) -> None:
        acme, abc = await stores.store.create_tenant("acme"), await stores.store.create_tenant("abc")
        app = await stores.store.create_credential(acme.id, "app", "hash-1")
        await stores.store.create_credential(abc.id, "batch", "hash-2")
        assert await stores.store.credential_by_username("app") == app
        assert await stores.store.credential_by_username("nobody") is None
        assert [c.username for c in await stores.store.list_credentials()] == ["app", "batch"]
        assert [c.username for c in await stores.store.list_credentials(acme.id)] == ["app"]
        with pytest.raises(AlreadyExists):
            await stores.store.create_credential(abc.id, "app", "hash-3")
        assert (await stores.store.set_password_hash("app", "hash-4")).password_hash == "hash-4"
        disabled = await stores.store.disable_credential("app")
        assert disabled.disabled_at is not None
        assert await stores.store.disable_credential("app") == disabled
        with pytest.raises(NotFound):
            await stores.store.disable_credential("nobody")
        for _ in range(2):
            enabled = await stores.store.enable_credential("app")
            assert (enabled.disabled_at, enabled.password_hash) == (None, "hash-4")
        with pytest.raises(NotFound):
            await stores.store.enable_credential("nobody")
        with pytest.raises(NotFound):
            await stores.store.set_password_hash("nobody", "hash")

    async def test_allowed_senders(self, stores: Stores) -> None:
        acme = await stores.store.create_tenant("acme")
        assert (await stores.store.create_credential(acme.id, "app", "hash")).allowed_senders == ()
        patterns = ("example.com", '"john doe"@example.net', "<>")
        batch = await stores.store.create_credential(acme.id, "batch", "hash", patterns)
        assert batch.allowed_senders == patterns
        assert await stores.store.credential_by_username("batch") == batch
        assert (await stores.store.set_allowed_senders("app", patterns[:1])).allowed_senders == patterns[:1]
        assert (await stores.store.disable_credential("app")).allowed_senders == patterns[:1]
        assert [c.allowed_senders for c in await stores.store.list_credentials()] == [patterns[:1], patterns]
        assert (await stores.store.set_allowed_senders("app", ())).allowed_senders == ()
        with pytest.raises(NotFound):
            await stores.store.set_allowed_senders("nobody", patterns)

    async def test_networks_of_a_credential(self, stores: Stores) -> None:
        acme = await stores.store.create_tenant("acme")
        office, one = ip_network("198.51.100.0/24"), ip_network("2001:db8::1")
        made = await stores.store.create_credential(acme.id, "app", "hash-1", allowed_networks=(office, one))
        assert made.allowed_networks == (office, one)
        assert await stores.store.credential_by_username("app") == made
        changed = await stores.store.set_allowed_networks("app", (one,))
        assert changed.allowed_networks == (one,)
        assert [c.allowed_networks for c in await stores.store.list_credentials()] == [(one,)]
        assert (await stores.store.set_allowed_networks("app", ())).allowed_networks == ()
        with pytest.raises(NotFound):
            await stores.store.set_allowed_networks("nobody", ())

    async def test_changes_of_credentials_are_told(self, stores: Stores) -> None:
        acme = await stores.store.create_tenant("acme")
        told: asyncio.Queue[None] = asyncio.Queue()
        listening = asyncio.create_task(stores.store.listen_credentials(lambda: told.put_nowait(None)))
        try:
            await asyncio.wait_for(told.get(), 20)  # once for the connection
            await stores.store.create_credential(acme.id, "app", "hash")
            await asyncio.wait_for(told.get(), 20)
            await stores.store.disable_credential("app")
            await asyncio.wait_for(told.get(), 20)
            await stores.store.enable_credential("app")
            await asyncio.wait_for(told.get(), 20)
            await stores.store.set_allowed_senders("app", ["example.com"])
            await asyncio.wait_for(told.get(), 20)
            await stores.store.set_tenant_limits("acme", TenantLimits(sessions=1))
            await asyncio.wait_for(told.get(), 20)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def test_certificates_of_clients(self, stores: Stores) -> None:
        store = stores.store
        acme = await store.create_tenant("acme")
        await store.create_credential(acme.id, "app", "hash")
        await store.create_credential(acme.id, "batch", "hash")
        added = await store.add_certificate("app", "sha256:00")
        assert (added.identity, added.username) == ("sha256:00", "app")
        await store.add_certificate("app", "dns:app.example")
        await store.add_certificate("batch", "dns:batch.example")
        with pytest.raises(AlreadyExists):
            await store.add_certificate("batch", "dns:app.example")
        with pytest.raises(NotFound):
            await store.add_certificate("nobody", "dns:nobody.example")
        assert [c.identity for c in await store.list_certificates("app")] == ["dns:app.example", "sha256:00"]
        assert [c.username for c in await store.list_certificates()] == ["app", "app", "batch"]
        asked = ["sha256:00", "dns:batch.example", "dns:nobody.example"]
        assert await store.usernames_by_certificate(asked) == {"sha256:00": "app", "dns:batch.example": "batch"}
        with pytest.raises(NotFound):
            await store.remove_certificate("batch", "sha256:00")
        await store.remove_certificate("app", "sha256:00")
        assert await store.usernames_by_certificate(["sha256:00"]) == {}

    async def test_changes_of_certificates_are_told(self, stores: Stores) -> None:
        acme = await stores.store.create_tenant("acme")
        await stores.store.create_credential(acme.id, "app", "hash")
        told: asyncio.Queue[None] = asyncio.Queue()
        listening = asyncio.create_task(stores.store.listen_credentials(lambda: told.put_nowait(None)))
        try:
            await asyncio.wait_for(told.get(), 20)  # once for the connection
            await stores.store.add_certificate("app", "dns:app.example")
            await asyncio.wait_for(told.get(), 20)
            await stores.store.remove_certificate("app", "dns:app.example")
            await asyncio.wait_for(told.get(), 20)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    # -- looking up

    async def test_messages_are_listed_newest_first_page_by_page(self, stores: Stores) -> None:
        other = uuid4()
        rows = [core_envelope([f"{n}@x.example"]) for n in range(4)] + [core_envelope(tenant=other.bytes)]
        ids = sorted(await stores.accepted(*rows), reverse=True)
        assert [m.id for m in await stores.store.list_messages()] == ids
        assert [m.id for m in await stores.store.list_messages(limit=2, before=ids[1])] == ids[2:4]
        (found,) = await stores.store.list_messages(tenant_id=other)
        assert found.id == UUID(bytes=rows[-1][0])
        assert (found.size_bytes, found.reverse_path) == (len(rows[-1][5]), "me@example.com")

    async def test_messages_are_found_by_state(self, stores: Stores) -> None:
        ids = await stores.accepted(core_envelope(["a@x.example", "b@x.example"]), core_envelope())
        worker = uuid4()
        (job,) = await stores.store.claim(ids[:1], worker, LEASE)
        await stores.store.record([attempt_for(job, worker, Outcome.DELIVERED)])
        (found,) = await stores.store.list_messages(state=DeliveryState.DELIVERED)
        assert found.id == ids[0]
        assert found.recipients == ("a@x.example", "b@x.example")
        assert found.states == (DeliveryState.DELIVERED, DeliveryState.SENDING)
        assert [m.id for m in await stores.store.list_messages(state=DeliveryState.QUEUED)] == ids[1:]
        assert await stores.store.list_messages(state=DeliveryState.REFUSED) == []

    async def test_a_message_that_is_not_there(self, stores: Stores) -> None:
        with pytest.raises(NotFound):
            await stores.store.message(uuid4())

    async def test_signs_of_life(self, stores: Stores) -> None:
        await stores.store.ping()
        await stores.store.probe_commit()
        assert (await stores.store.list_messages(), await stores.store.depth()) == ([], 0)
        await stores.store.ensure_partitions(datetime.now(UTC), 3)
        assert await stores.store.ensure_partitions(datetime.now(UTC), 3) == []
