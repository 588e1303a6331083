"""Webhooks and their outbox."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from smtp_proxy.errors import NotFound
from smtp_proxy.model.attempt import Outcome, Sending
from smtp_proxy.model.change import Change, Reroute
from smtp_proxy.model.envelope import Job
from smtp_proxy.model.policy import OnUnknown, TenantPolicy
from smtp_proxy.model.webhook import Told, Webhook, WebhookEvent
from smtp_proxy.sealing import Sealed
from smtp_proxy.store.ids import new_id
from store_suite.rows import LEASE, Stores, attempt_for, core_envelope

NOW = datetime(2020, 2, 29, 12, tzinfo=UTC)


class Outbox:
    """A tenant with a webhook, and its mail."""

    def __init__(self, stores: Stores, tenant: UUID, webhook: Webhook) -> None:
        self.store, self._stores, self.tenant, self.webhook = stores.store, stores, tenant, webhook
        self.worker = uuid4()

    @classmethod
    async def made(cls, stores: Stores, *events: str) -> Outbox:
        tenant = (await stores.store.create_tenant("acme")).id
        webhook = Webhook(new_id(NOW), tenant, "https://x.example/", events, Sealed("k1", b"sealed"), NOW)
        await stores.store.add_webhook(webhook)
        return cls(stores, tenant, webhook)

    async def another(self) -> Webhook:
        webhook = replace(self.webhook, id=new_id(NOW), url="https://y.example/")
        await self.store.add_webhook(webhook)
        return webhook

    async def job(self, *recipients: str, tenant: UUID | None = None) -> Job:
        row = core_envelope(recipients or ("a@rcpt.example",), tenant=(tenant or self.tenant).bytes)
        (envelope_id,) = await self._stores.accepted(row)
        return await self.claimed(envelope_id)

    async def claimed(self, envelope_id: UUID) -> Job:
        (job,) = await self.store.claim([envelope_id], self.worker, LEASE)
        return job

    async def record(self, job: Job, outcome: Outcome, **options: Any) -> None:
        assert await self.store.record([attempt_for(job, self.worker, outcome, **options)]) == 1

    async def counts(self, **options: int) -> dict[UUID, tuple[int, int]]:
        return await self.store.event_counts([self.webhook.id, uuid4()], **options)

    async def replay(self, **options: Any) -> int:
        return sum([count async for count in self.store.replay_events(self.webhook.id, **options)])

    async def due(self, limit: int = 100) -> list[WebhookEvent]:
        return await self.store.due_events(self.webhook.id, limit)


class WebhookSuite:
    async def test_webhooks_of_tenants(self, stores: Stores) -> None:
        outbox = await Outbox.made(stores, "bounced")
        store, webhook = stores.store, outbox.webhook
        assert await store.list_webhooks() == [webhook] == await store.list_webhooks(outbox.tenant)
        assert await store.list_webhooks(uuid4()) == []
        values = {"failing_since": NOW, "failures": 3, "paused_until": NOW, "disabled_at": NOW}
        await store.judge_webhook(webhook.id, **values, error="no")
        assert await store.list_webhooks() == [replace(webhook, **values, last_error="no")]
        await store.judge_webhook(webhook.id)
        assert await store.list_webhooks() == [webhook]
        assert await store.reseal_webhook(webhook, Sealed("k2", b"new"))
        assert not await store.reseal_webhook(webhook, Sealed("k3", b"late"))
        await store.remove_webhook(webhook.id)
        with pytest.raises(NotFound):
            await store.remove_webhook(webhook.id)

    async def test_what_became_of_mail_is_told(self, stores: Stores) -> None:
        outbox = await Outbox.made(stores)
        job = await outbox.job("a@rcpt.example", "b@rcpt.example", "c@rcpt.example")
        for recipient, outcome, options in (
            (0, Outcome.DELIVERED, {}),
            (1, Outcome.REFUSED, {}),
            (2, Outcome.DEFERRED, {"retry_in": 0.0}),
        ):
            await outbox.record(job, outcome, recipient=recipient, **options)
        events = []
        while due := await outbox.due():
            assert len(due) == 1, "of one message, one after the other"
            events += due
            await stores.store.settle_events([Told(due[0])])
        assert [e.event for e in events] == ["delivered", "bounced", "deferred"]
        assert [e.sequence for e in events] == sorted(e.sequence for e in events)
        first, _, last = (e.payload for e in events)
        assert first["message"]["id"] == str(job.envelope.id)
        assert first["message"]["from"] == job.envelope.reverse_path
        assert datetime.fromisoformat(first["message"]["received_at"]) == job.envelope.received_at
        assert (first["recipient"], first["attempt"]["reply_code"]) == ("a@rcpt.example", 250)
        assert first["next_attempt_at"] is None
        assert datetime.fromisoformat(last["next_attempt_at"]).tzinfo is not None
        assert set(first) == {"event", "message", "recipient", "attempt", "next_attempt_at"}
        assert await outbox.counts() == {}

    async def test_an_expired_message_is_told_as_that(self, stores: Stores) -> None:
        outbox = await Outbox.made(stores)
        attempt = attempt_for(await outbox.job(), outbox.worker, Outcome.REFUSED)
        await stores.store.record([replace(attempt, result=replace(attempt.result, enhanced_code="5.4.7"))])
        assert [e.event for e in await outbox.due()] == ["expired"]

    async def told(self, outbox: Outbox) -> list[WebhookEvent]:
        """All that waits, in the order in which it is told."""
        events: list[WebhookEvent] = []
        while due := await outbox.due():
            events += due
            await outbox.store.settle_events([Told(event) for event in due])
        return events

    async def test_what_an_operator_does_is_told_in_its_order(self, stores: Stores) -> None:
        outbox = await Outbox.made(stores)
        job = await outbox.job("a@rcpt.example", "b@rcpt.example")
        await outbox.record(job, Outcome.DELIVERED, recipient=0)
        await outbox.record(job, Outcome.DEFERRED, recipient=1, retry_in=60.0)
        for change in (Change.HOLD, Change.RELEASE, Change.HOLD, Change.CANCEL):
            assert await stores.store.change(change, [job.envelope.id]) == [job.envelope.id]
        assert await stores.store.change(Change.CANCEL, [job.envelope.id]) == []
        events = await self.told(outbox)
        assert [e.event for e in events] == ["delivered", "deferred", "held", "released", "held", "cancelled"]
        assert len({e.id for e in events}) == 6, "an id each, by which a receiver knows what it has"
        assert {e.payload["recipient"] for e in events[1:]} == {"b@rcpt.example"}
        assert [e.payload["attempt"] is None for e in events] == [False, False, True, True, True, True]
        assert [e.payload["next_attempt_at"] is None for e in events[2:]] == [True, False, True, True]

    async def test_a_reroute_is_told(self, stores: Stores) -> None:
        outbox = await Outbox.made(stores, "rerouted")
        job = await outbox.job("a@rcpt.example", "b@rcpt.example")
        await outbox.record(job, Outcome.DELIVERED, recipient=0)
        await outbox.record(job, Outcome.DEFERRED, recipient=1, retry_in=60.0)
        for route in ("spare", None):
            assert await stores.store.reroute(Reroute(route), [job.envelope.id]) == [job.envelope.id]
        events = await self.told(outbox)
        assert [e.event for e in events] == ["rerouted", "rerouted"]
        assert {e.payload["recipient"] for e in events} == {"b@rcpt.example"}
        assert all(e.payload["next_attempt_at"] for e in events)

    async def test_a_replay_is_told_between_the_attempts(self, stores: Stores) -> None:
        outbox = await Outbox.made(stores, "bounced", "replayed")
        job = await outbox.job("a@rcpt.example", "b@rcpt.example")
        await outbox.record(job, Outcome.DELIVERED, recipient=0)
        await outbox.record(job, Outcome.REFUSED, recipient=1)
        assert await stores.store.replay([job.envelope.id]) == [job.envelope.id]
        assert await stores.store.replay([job.envelope.id]) == [], "nothing of it is dead any more"
        events = await self.told(outbox)
        assert [e.event for e in events] == ["bounced", "replayed"]
        assert {e.payload["recipient"] for e in events} == {"b@rcpt.example"}
        assert events[1].payload["next_attempt_at"]
        assert len({e.id for e in events}) == 2

    async def test_what_is_done_to_all_of_a_tenant_is_told(self, stores: Stores) -> None:
        outbox = await Outbox.made(stores, "released", "cancelled")
        ids = [(await outbox.job()).envelope.id for _ in range(3)]
        await stores.store.release(outbox.worker)
        assert sum([n async for n in stores.store.change_all(Change.HOLD, outbox.tenant, batch=2)]) == 3
        assert await outbox.due() == [], "held is not what it asked for"
        assert sum([n async for n in stores.store.release_all_held(outbox.tenant, batch=2)]) == 3
        assert sum([n async for n in stores.store.change_all(Change.CANCEL, outbox.tenant)]) == 3
        events = await self.told(outbox)
        assert sorted((e.event, e.envelope_id) for e in events) == sorted(
            (name, i) for name in ("released", "cancelled") for i in ids
        )

    @pytest.mark.parametrize("on_unknown", list(OnUnknown))
    async def test_an_attempt_that_nobody_recorded_is_told(self, stores: Stores, on_unknown: OnUnknown) -> None:
        outbox = await Outbox.made(stores)
        await stores.store.set_tenant_policy("acme", TenantPolicy(on_unknown=on_unknown))
        job = await outbox.job("a@rcpt.example", "b@rcpt.example")
        sending = Sending(job.envelope.id, outbox.tenant, 0, 1, outbox.worker, NOW, "mx.example:25")
        assert await stores.store.sending([sending]) == {(job.envelope.id, 0)}
        await stores.store.release(outbox.worker)
        (event,) = await outbox.due()
        expected = "held" if on_unknown is OnUnknown.HOLD else "deferred"
        assert (event.event, event.recipient_number, event.attempt_number) == (expected, 0, 1)
        assert event.payload["attempt"]["remote"] == "mx.example:25"
        assert (event.payload["next_attempt_at"] is None) == (on_unknown is OnUnknown.HOLD)
        assert await stores.store.record([attempt_for(job, outbox.worker, Outcome.DELIVERED)]) == 0
        assert len(await self.told(outbox)) == 1, "what is fenced tells nothing more"

    async def test_nobody_is_told_of_other_mail(self, stores: Stores) -> None:
        outbox = await Outbox.made(stores, "bounced", "expired")
        other = (await stores.store.create_tenant("other")).id
        await outbox.record(await outbox.job(tenant=other), Outcome.REFUSED)
        await outbox.record(await outbox.job(), Outcome.DELIVERED)
        await stores.store.judge_webhook(outbox.webhook.id, disabled_at=NOW)
        await outbox.record(await outbox.job(), Outcome.REFUSED)
        assert await outbox.due() == []
        await stores.store.judge_webhook(outbox.webhook.id)
        await outbox.record(await outbox.job(), Outcome.REFUSED)
        assert len(await outbox.due()) == 1

    async def test_a_lost_claim_tells_nothing_and_a_repeated_record_nothing_more(self, stores: Stores) -> None:
        outbox = await Outbox.made(stores)
        job = await outbox.job()
        assert await stores.store.record([attempt_for(job, uuid4(), Outcome.DELIVERED)]) == 0
        assert await outbox.due() == []
        attempt = attempt_for(job, outbox.worker, Outcome.DELIVERED)
        assert await stores.store.record([attempt]) == 1
        assert await stores.store.record([attempt]) == 0
        assert len(await outbox.due()) == 1

    async def test_a_paused_webhook_is_not_called(self, stores: Stores) -> None:
        outbox = await Outbox.made(stores)
        store = stores.store
        assert await store.webhooks_to_call() == []
        await outbox.record(await outbox.job(), Outcome.DELIVERED)
        assert [w.id for w in await store.webhooks_to_call()] == [outbox.webhook.id]
        await store.judge_webhook(outbox.webhook.id, paused_until=datetime.now(UTC) + timedelta(hours=1))
        assert await store.webhooks_to_call() == []

    async def test_what_is_tried_again_keeps_its_message_in_order(self, stores: Stores) -> None:
        outbox = await Outbox.made(stores)
        job = await outbox.job("a@rcpt.example", "b@rcpt.example")
        await outbox.record(job, Outcome.DELIVERED, recipient=0)
        await outbox.record(job, Outcome.DELIVERED, recipient=1)
        await outbox.record(await outbox.job(), Outcome.DELIVERED)
        first, alone = await outbox.due()
        again_at = datetime.now(UTC) + timedelta(hours=1)
        await stores.store.settle_events([Told(first, "500", again_at), Told(alone)])
        assert await outbox.due() == [], "the second waits for the first"
        assert await outbox.counts() == {outbox.webhook.id: (2, 0)}

    async def test_what_is_settled_stays_so_when_a_former_leader_comes_late(self, stores: Stores) -> None:
        outbox = await Outbox.made(stores)
        job = await outbox.job("a@rcpt.example", "b@rcpt.example")
        await outbox.record(job, Outcome.DELIVERED, recipient=0)
        await outbox.record(job, Outcome.DELIVERED, recipient=1)
        (first,) = await outbox.due()
        await stores.store.settle_events([Told(first)])
        (second,) = await outbox.due()
        await stores.store.settle_events([Told(first, "500", datetime.now(UTC) + timedelta(hours=1))])
        assert await outbox.due() == [second], "neither is it told again, nor does the next one wait for it"
        assert await outbox.counts() == {outbox.webhook.id: (1, 0)}
        await stores.store.settle_events([Told(first, "500")])
        assert await outbox.counts() == {outbox.webhook.id: (1, 0)}

    async def test_a_judgement_of_what_was_enabled_since_counts_for_nothing(self, stores: Stores) -> None:
        outbox = await Outbox.made(stores)
        store, webhook = stores.store, outbox.webhook
        assert await store.judge_webhook(webhook.id, failing_since=NOW, failures=1, error="no", seen=webhook)
        (failing,) = await store.list_webhooks()
        assert await store.judge_webhook(webhook.id)
        assert not await store.judge_webhook(webhook.id, failing_since=NOW, failures=2, disabled_at=NOW, seen=failing)
        assert await store.list_webhooks() == [webhook]
        assert not await store.judge_webhook(uuid4(), seen=webhook)

    async def test_what_was_given_up_is_replayed(self, stores: Stores) -> None:
        outbox = await Outbox.made(stores)
        store, webhook = stores.store, outbox.webhook.id
        for _ in range(2):
            await outbox.record(await outbox.job(), Outcome.DELIVERED)
        given_up, taken = await outbox.due()
        await store.settle_events([Told(given_up, "500"), Told(taken)])
        assert await outbox.counts() == {webhook: (0, 1)}
        assert await outbox.replay(since=datetime.now(UTC) + timedelta(days=1)) == 0
        assert await outbox.replay(envelope_id=taken.envelope_id) == 0
        assert await outbox.replay() == 1
        assert [e.id for e in await outbox.due()] == [given_up.id]
        assert await outbox.replay(envelope_id=taken.envelope_id, everything=True) == 1
        assert len(await outbox.due()) == 2

    async def test_what_is_replayed_or_enabled_has_its_whole_time_anew(self, stores: Stores) -> None:
        outbox = await Outbox.made(stores)
        store, began = stores.store, datetime.now(UTC) - timedelta(seconds=5)
        await outbox.record(await outbox.job(), Outcome.DELIVERED)
        (event,) = await outbox.due()
        assert event.tried_since(outbox.webhook) == event.occurred_at
        await store.settle_events([Told(event, "500")])
        assert await outbox.replay() == 1
        (again,) = await outbox.due()
        old = replace(again, occurred_at=NOW - timedelta(days=30))
        assert old.tried_since(outbox.webhook) >= began
        long_off = replace(old, replayed_at=None)
        await store.judge_webhook(outbox.webhook.id, failing_since=NOW, failures=3, disabled_at=NOW, error="no")
        await store.judge_webhook(outbox.webhook.id)
        (well,) = await store.list_webhooks()
        assert long_off.tried_since(well) == long_off.occurred_at, "a success of its own is no operator's word"
        await store.judge_webhook(outbox.webhook.id, failing_since=NOW, failures=3, disabled_at=NOW, error="no")
        await store.enable_webhook(outbox.webhook.id)
        (enabled,) = await store.list_webhooks()
        assert enabled == replace(outbox.webhook, enabled_at=enabled.enabled_at)
        assert long_off.tried_since(enabled) >= began
        with pytest.raises(NotFound):
            await store.enable_webhook(uuid4())

    async def test_no_message_has_the_lowest_id(self, stores: Stores) -> None:
        outbox = await Outbox.made(stores)
        for everything in (False, True):
            assert await outbox.replay(envelope_id=UUID(int=0), everything=everything) == 0

    @pytest.mark.parametrize("everything", [False, True])
    async def test_much_is_replayed_in_batches_and_counted_so_far(self, stores: Stores, everything: bool) -> None:
        outbox = await Outbox.made(stores)
        other = await outbox.another()
        for _ in range(3):
            job = await outbox.job("a@rcpt.example", "b@rcpt.example")
            for recipient in (0, 1):
                await outbox.record(job, Outcome.DELIVERED, recipient=recipient)
        for webhook in (outbox.webhook.id, other.id):
            while due := await stores.store.due_events(webhook, 100):
                await stores.store.settle_events([Told(event, "" if everything else "500") for event in due])
        assert await outbox.counts(most=4) == ({} if everything else {outbox.webhook.id: (0, 4)})
        batches = [n async for n in stores.store.replay_events(outbox.webhook.id, everything=everything, batch=2)]
        assert (sum(batches), max(batches)) == (6, 2)
        assert await outbox.counts() == {outbox.webhook.id: (6, 0)}
        assert await stores.store.due_events(other.id, 100) == [], "another's stay as they are"

    async def test_what_waits_for_a_removed_webhook_is_forgotten(self, stores: Stores) -> None:
        outbox = await Outbox.made(stores)
        await outbox.record(await outbox.job(), Outcome.DELIVERED)
        await stores.store.remove_webhook(outbox.webhook.id)
        assert await outbox.counts() == {}
