"""What becomes of mail that is not delivered: reports, suppressions, dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from smtp_proxy.model.attempt import Attempt, Kind, Outcome, Postponed
from smtp_proxy.model.dsn import Notify
from smtp_proxy.model.envelope import BodyType, DeliveryState, Envelope, Job
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.outcome import Consequences, DueReport, Suppression
from smtp_proxy.model.policy import Reports, TenantPolicy
from smtp_proxy.store.ids import new_id
from store_suite.rows import CREDENTIAL, LEASE, TENANT, Stores, attempt_for, core_envelope

# One address: of é and ü in either case, composed or not, and its domain in U-labels or A-labels.
SPELLINGS = [
    "\u00e9va@b\u00fccher.example",
    "\u00c9VA@B\u00dcCHER.EXAMPLE",
    "\u00c9va@XN--Bcher-KVA.example",
    "e\u0301va@bu\u0308cher.example",
]
KEY = "\u00e9va@xn--bcher-kva.example"


def report_on(job: Job, numbers: Sequence[int], delayed: Sequence[int] = ()) -> DueReport:
    report_id = new_id(datetime.now(UTC))

    def render(told: frozenset[int]) -> Envelope | None:
        body = f"Subject: about {sorted(told)}\r\n\r\n\r\n".encode()
        made = Envelope(report_id, TENANT, CREDENTIAL, "", body, BodyType.SEVEN_BIT, False, datetime.now(UTC), "here")
        return made if told else None

    return DueReport(report_id, job.envelope.id, frozenset(numbers), frozenset(delayed), "me@example.com", render)


class OutcomeSuite:
    async def _claimed(self, stores: Stores, *recipients: str) -> tuple[Job, UUID]:
        worker = uuid4()
        (envelope_id,) = await stores.accepted(core_envelope(recipients or ("you@example.net",)))
        (job,) = await stores.store.claim([envelope_id], worker, LEASE)
        return job, worker

    # -- reports

    async def test_a_report_is_enqueued_with_the_attempt(self, stores: Stores) -> None:
        job, worker = await self._claimed(stores, "a@x.example", "b@x.example")
        attempts = [attempt_for(job, worker, Outcome.REFUSED, recipient=n) for n in (0, 1)]
        report = report_on(job, [0, 1])
        assert await stores.store.record(attempts, Consequences([report])) == 2
        (made,) = await stores.store.claim([report.id], worker, LEASE)
        assert (made.envelope.reverse_path, made.envelope.tenant_id) == ("", TENANT)
        assert made.envelope.body.startswith(b"Subject: about [0, 1]")
        assert [(r.address, r.notify) for r in made.recipients] == [("me@example.com", Notify.NEVER)]

    async def test_a_report_goes_in_the_lane_of_what_it_is_about(self, stores: Stores) -> None:
        job, worker = await self._claimed(stores)
        report = replace(report_on(job, [0]), lane=Lane.BULK)
        await stores.store.record([attempt_for(job, worker, Outcome.REFUSED)], Consequences([report]))
        (made,) = await stores.store.claim([report.id], worker, LEASE)
        assert made.lane is Lane.BULK

    async def test_recording_again_makes_no_second_report(self, stores: Stores) -> None:
        """As after a COMMIT whose answer was lost."""
        job, worker = await self._claimed(stores)
        attempts, report = [attempt_for(job, worker, Outcome.REFUSED)], report_on(job, [0])
        assert await stores.store.record(attempts, Consequences([report])) == 1
        assert await stores.store.record(attempts, Consequences([report])) == 0
        (made,) = await stores.store.claim([report.id], worker, LEASE)
        assert len(made.recipients) == 1

    async def test_without_the_claim_nothing_is_reported(self, stores: Stores) -> None:
        job, worker = await self._claimed(stores, "a@x.example")
        stray = replace(attempt_for(job, worker, Outcome.REFUSED), worker_id=uuid4())
        report = report_on(job, [0])
        assert await stores.store.record([stray], Consequences([report])) == 0
        assert await stores.store.claim([report.id], worker, LEASE) == []

    async def test_a_delay_without_an_attempt_is_told_once_and_with_the_claim_alone(self, stores: Stores) -> None:
        job, worker = await self._claimed(stores, "a@x.example", "b@x.example")
        due_at = datetime.now(UTC) - timedelta(seconds=1)
        stray, first = (report_on(job, [0, 1], [0, 1]) for _ in range(2))
        theirs, ours = ([Postponed(job.envelope.id, n, w, due_at) for n in (0, 1)] for w in (uuid4(), worker))
        assert await stores.store.postpone(theirs, Consequences([stray])) == 0
        assert await stores.store.postpone(ours[:1], Consequences([first])) == 1
        assert await stores.store.postpone(ours[:1], Consequences([first])) == 0
        assert await stores.store.claim([stray.id], worker, LEASE) == []
        (made,) = await stores.store.claim([first.id], worker, LEASE)
        assert made.envelope.body.startswith(b"Subject: about [0]"), "the other was not postponed"
        (again,) = await stores.store.claim([job.envelope.id], worker, LEASE)
        assert [(r.number, r.delay_reported, r.attempt_number) for r in again.recipients] == [(0, True, 1)]
        second = report_on(job, [0, 1], [0, 1])
        assert await stores.store.postpone(ours, Consequences([second])) == 2
        (made,) = await stores.store.claim([second.id], worker, LEASE)
        assert made.envelope.body.startswith(b"Subject: about [1]"), "of the first it was told before"

    async def test_a_report_tells_of_what_was_recorded(self, stores: Stores) -> None:
        job, worker = await self._claimed(stores, "a@x.example", "b@x.example")
        first, second = (attempt_for(job, worker, Outcome.REFUSED, recipient=n) for n in (0, 1))
        report = report_on(job, [0, 1])
        await stores.store.record([first, replace(second, worker_id=uuid4())], Consequences([report]))
        (made,) = await stores.store.claim([report.id], worker, LEASE)
        assert made.envelope.body.startswith(b"Subject: about [0]")

    async def test_a_delay_is_reported_once(self, stores: Stores) -> None:
        job, worker = await self._claimed(stores)
        first, second = report_on(job, [0], [0]), report_on(job, [0], [0])
        deferred = attempt_for(job, worker, Outcome.DEFERRED, retry_in=-1)
        await stores.store.record([deferred], Consequences([first]))
        (again,) = await stores.store.claim([job.envelope.id], worker, LEASE)
        await stores.store.record([attempt_for(again, worker, Outcome.DEFERRED, retry_in=-1)], Consequences([second]))
        made = await stores.store.claim([first.id, second.id], worker, LEASE)
        assert [each.envelope.id for each in made] == [first.id]

    # -- suppressions

    async def test_an_address_that_is_suppressed_is_claimed_as_such(self, stores: Stores) -> None:
        tenant = await stores.store.create_tenant("acme")
        other = await stores.store.create_tenant("other")
        assert await stores.store.add_suppressions(tenant.id, ["You@Example.NET", "you@example.net"], "gone") == 1
        assert await stores.store.add_suppressions(other.id, ["third@example.net"], "theirs") == 1
        rows = core_envelope(["YOU@example.net", "third@example.net"], tenant=tenant.id.bytes)
        (envelope_id,) = await stores.accepted(rows)
        (job,) = await stores.store.claim([envelope_id], uuid4(), LEASE)
        assert [r.suppressed for r in job.recipients] == ["gone", None]

    @pytest.mark.parametrize("kept", SPELLINGS)
    async def test_an_address_is_suppressed_in_any_spelling(self, stores: Stores, kept: str) -> None:
        tenant = await stores.store.create_tenant("acme")
        assert await stores.store.add_suppressions(tenant.id, [kept], "gone") == 1
        assert await stores.store.add_suppressions(tenant.id, SPELLINGS, "again") == 0
        rows = core_envelope([*SPELLINGS, "eva@xn--bcher-kva.example"], tenant=tenant.id.bytes)
        (envelope_id,) = await stores.accepted(rows)
        (job,) = await stores.store.claim([envelope_id], uuid4(), LEASE)
        assert [r.suppressed for r in job.recipients] == ["gone"] * len(SPELLINGS) + [None]
        for spelling in SPELLINGS:
            (found,) = await stores.store.list_suppressions(tenant.id, address=spelling)
            assert found.address == KEY
        assert await stores.store.remove_suppressions(tenant.id, SPELLINGS) == [KEY]
        assert await stores.store.list_suppressions(tenant.id) == []

    async def test_a_hard_bounce_in_another_spelling_changes_nothing(self, stores: Stores) -> None:
        tenant = await stores.store.create_tenant("acme")
        await stores.store.add_suppressions(tenant.id, [SPELLINGS[0]], "asked us to")
        job, worker = await self._claimed(stores, "a@x.example", "b@x.example")
        new = Suppression(tenant.id, "\u00c4@x.example", "550", job.envelope.id)
        known = Suppression(tenant.id, SPELLINGS[1], "550", job.envelope.id)
        attempts = [attempt_for(job, worker, Outcome.REFUSED, recipient=n) for n in (0, 1)]
        await stores.store.record(attempts, Consequences((), [(0, known), (1, new)]))
        found = await stores.store.list_suppressions(tenant.id)
        assert {s.address: s.reason for s in found} == {KEY: "asked us to", "\u00e4@x.example": "550"}

    async def test_a_dead_letter_is_replayed_by_any_spelling(self, stores: Stores) -> None:
        job, worker = await self._claimed(stores, SPELLINGS[2], "eva@xn--bcher-kva.example")
        attempts = [attempt_for(job, worker, Outcome.REFUSED, recipient=n) for n in (0, 1)]
        await stores.store.record(attempts)
        assert await stores.store.replay([job.envelope.id], ["nobody@x.example"]) == []
        assert await stores.store.replay([job.envelope.id], [SPELLINGS[0]]) == [job.envelope.id]
        (again,) = await stores.store.claim([job.envelope.id], worker, LEASE)
        assert [r.number for r in again.recipients] == [0]

    async def test_a_hard_bounce_puts_an_address_there(self, stores: Stores) -> None:
        tenant = await stores.store.create_tenant("acme")
        job, worker = await self._claimed(stores, "a@x.example", "b@x.example")
        recorded = attempt_for(job, worker, Outcome.REFUSED)
        lost = replace(attempt_for(job, worker, Outcome.REFUSED, recipient=1), worker_id=uuid4())
        then = Consequences(
            (), [(n, Suppression(tenant.id, f"{a}@x.example", "550", job.envelope.id)) for n, a in enumerate("ab")]
        )
        await stores.store.record([recorded, lost], then)
        (found,) = await stores.store.list_suppressions(tenant.id)
        assert (found.address, found.reason, found.envelope_id) == ("a@x.example", "550", job.envelope.id)
        assert found.created_at is not None

    async def test_the_list_is_read_in_pages_and_changed(self, stores: Stores) -> None:
        tenant = await stores.store.create_tenant("acme")
        addresses = [f"{n}@x.example" for n in range(5)]
        assert await stores.store.add_suppressions(tenant.id, addresses, "imported") == 5
        assert await stores.store.add_suppressions(tenant.id, [addresses[0], "new@x.example"], "later") == 1
        page = await stores.store.list_suppressions(tenant.id, after=addresses[1], limit=2)
        assert [s.address for s in page] == addresses[2:4]
        (one,) = await stores.store.list_suppressions(tenant.id, address="0@X.example")
        assert one.reason == "imported"
        assert await stores.store.remove_suppressions(tenant.id, ["0@X.EXAMPLE", "nobody@x.example"]) == [addresses[0]]
        assert await stores.store.list_suppressions(tenant.id, address=addresses[0]) == []

    async def test_a_policy_of_reports_and_age(self, stores: Stores) -> None:
        tenant = await stores.store.create_tenant("acme")
        await stores.store.create_tenant("as the rest")
        wanted = TenantPolicy(max_age_seconds=3600, reports=Reports.NONE, suppress_hard_bounces=True)
        assert await stores.store.set_tenant_policy("acme", wanted) == wanted
        assert await stores.store.tenant_policies() == {tenant.id: wanted}

    # -- dead letters

    async def _refused(self, stores: Stores, kind: Kind = Kind.HARD, *recipients: str) -> Job:
        job, worker = await self._claimed(stores, *recipients)
        attempts: list[Attempt] = []
        for recipient in job.recipients:
            attempt = attempt_for(job, worker, Outcome.REFUSED, recipient=recipient.number)
            attempts.append(replace(attempt, result=replace(attempt.result, kind=kind)))
        await stores.store.record(attempts)
        return job

    async def test_what_was_refused_is_listed(self, stores: Stores) -> None:
        many = await self._refused(stores, Kind.HARD, "a@x.example", "b@x.example")
        one = await self._refused(stores, Kind.QUOTA)
        await stores.accepted(core_envelope())
        found = await stores.store.dead_letters()
        newest, oldest = sorted((many.envelope.id, one.envelope.id), reverse=True)
        assert [d.envelope_id for d in found] == sorted((d.envelope_id for d in found), reverse=True)
        assert sorted(d.number for d in found if d.envelope_id == many.envelope.id) == [0, 1]
        (letter,) = await stores.store.dead_letters(kind=Kind.QUOTA)
        assert (letter.envelope_id, letter.tenant_id, letter.reverse_path) == (
            one.envelope.id,
            TENANT,
            "me@example.com",
        )
        assert (letter.recipient, letter.kind, letter.reply_code) == ("you@example.net", Kind.QUOTA, 550)
        assert letter.attempt_count == 1
        assert letter.finished_at is not None
        assert [d.envelope_id for d in await stores.store.dead_letters(before=newest, limit=1)] == [oldest]
        assert await stores.store.dead_letters(tenant_id=uuid4()) == []

    async def test_a_dead_letter_is_replayed_and_its_attempts_stay(self, stores: Stores) -> None:
        job = await self._refused(stores)
        envelope_id, worker = job.envelope.id, uuid4()
        assert await stores.store.replay([envelope_id, uuid4()]) == [envelope_id]
        assert await stores.store.replay([envelope_id]) == []
        (again,) = await stores.store.claim([envelope_id], worker, LEASE)
        (recipient,) = again.recipients
        assert (recipient.attempt_number, recipient.replayed_attempts) == (2, 1)
        assert recipient.replayed_at is not None
        assert await stores.store.record([attempt_for(again, worker, Outcome.DELIVERED)]) == 1
        (delivery,) = (await stores.store.message(envelope_id)).deliveries
        assert delivery.state is DeliveryState.DELIVERED
        assert [(a.number, a.outcome) for a in delivery.attempts] == [(1, Outcome.REFUSED), (2, Outcome.DELIVERED)]

    async def test_some_recipients_are_replayed(self, stores: Stores) -> None:
        job = await self._refused(stores, Kind.HARD, "a@x.example", "b@x.example")
        assert await stores.store.replay([job.envelope.id], ["B@x.example"]) == [job.envelope.id]
        deliveries = (await stores.store.message(job.envelope.id)).deliveries
        assert [d.state for d in deliveries] == [DeliveryState.REFUSED, DeliveryState.QUEUED]
