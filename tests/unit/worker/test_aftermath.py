"""What follows when mail is not delivered: reports, suppressions, replays, through the worker over fakes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from uuid import UUID

import pytest
from fix_worker import House, eventually
from store_suite import core_envelope

from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult
from smtp_proxy.model.dsn import Notify
from smtp_proxy.model.envelope import DeliveryState, Envelope, Job
from smtp_proxy.model.policy import Reports, TenantPolicy
from smtp_proxy.model.tenant import Tenant

KINDS = {Outcome.DELIVERED: Kind.ACCEPTED, Outcome.DEFERRED: Kind.SOFT, Outcome.REFUSED: Kind.HARD}
CODES = {Outcome.DELIVERED: (250, "2.0.0"), Outcome.DEFERRED: (451, "4.3.0"), Outcome.REFUSED: (550, "5.1.1")}


class Told(House):
    """A worker whose transport says for each address what becomes of it; what goes to `me@` is a report."""

    def __init__(self, **overrides: object) -> None:
        super().__init__(
            **{"hostname": "mail.example.org", "retry_initial_seconds": 0.1, "retry_jitter": 0.0, **overrides}
        )
        self.fate: dict[str, Outcome] = {}
        self.busy: set[str] = set()  # nothing is asked of their next hop
        self.dsn = False
        self.transport.deliver = self._deliver  # type: ignore[method-assign]

    async def _deliver(self, job: Job, *_: object) -> list[RecipientResult]:
        self.transport.jobs.append(job)
        return [
            RecipientResult(
                r.number, outcome, *said, "so", "mx.example:25", KINDS[outcome],
                dsn_passed_on=self.dsn and r.notify is not None,
                postponed_seconds=0.2 if r.address in self.busy else 0.0,
            )
            for r in job.recipients
            for outcome in [self.fate.get(r.address, Outcome.DELIVERED)]
            for said in [(0, "") if r.address in self.busy else CODES[outcome]]
        ]  # fmt: skip

    async def send(self, *recipients: str, reverse_path: str = "me@example.com", **changes: object) -> UUID:
        row = core_envelope(recipients, **{"reverse_path": reverse_path, "tenant": self.tenant.id.bytes, **changes})
        await self.store.accept([row], sweep_after_seconds=0.2)
        await self.publisher.publish([UUID(bytes=row[0])])
        return UUID(bytes=row[0])

    @property
    def reports(self) -> list[Envelope]:
        return [job.envelope for job in self.transport.jobs if job.envelope.reverse_path == ""]

    tenant: Tenant

    async def begin(self, policy: TenantPolicy | None = None) -> None:
        self.tenant = await self.store.create_tenant("acme")
        if policy is not None:
            await self.store.set_tenant_policy("acme", policy)
        self.start(sweeping=True)

    async def ended(self, envelope_id: UUID, *states: DeliveryState) -> None:
        async def reached() -> bool:
            return await self.states(envelope_id) == list(states)

        await eventually(reached, 60)


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    made = Told()
    yield made
    await made.end()


async def reported(house: Told, count: int) -> list[Envelope]:
    async def there() -> bool:
        return len(house.reports) == count

    await eventually(there, 60)
    return house.reports


async def test_a_refusal_is_reported_once_and_for_all_recipients(told: Told) -> None:
    await told.begin()
    told.fate = {"a@x.example": Outcome.REFUSED, "b@x.example": Outcome.REFUSED}
    await told.ended(
        await told.send("a@x.example", "b@x.example", "c@x.example"),
        DeliveryState.REFUSED, DeliveryState.REFUSED, DeliveryState.DELIVERED,
    )  # fmt: skip
    (report,) = await reported(told, 1)
    (job,) = [job for job in told.transport.jobs if job.envelope.id == report.id]
    assert [(r.address, r.notify) for r in job.recipients] == [("me@example.com", Notify.NEVER)]
    assert report.body.count(b"Action: failed") == 2
    assert b"c@x.example" not in report.body
    await told.ended(report.id, DeliveryState.DELIVERED)


async def test_delivered_mail_makes_no_report(told: Told) -> None:
    await told.begin()
    await told.ended(await told.send("a@x.example"), DeliveryState.DELIVERED)
    assert told.reports == []


async def test_a_report_is_never_reported_on(told: Told) -> None:
    await told.begin()
    told.fate = {"a@x.example": Outcome.REFUSED, "me@example.com": Outcome.REFUSED}
    await told.send("a@x.example")
    (report,) = await reported(told, 1)
    await told.ended(report.id, DeliveryState.REFUSED)
    null = await told.send("a@x.example", reverse_path="")
    await told.ended(null, DeliveryState.REFUSED)
    assert {job.envelope.id for job in told.transport.jobs if job.envelope.reverse_path == ""} == {report.id, null}


@pytest.mark.parametrize(
    ("notify", "fate", "dsn", "actions"),
    [
        (Notify.NEVER, Outcome.REFUSED, False, []),
        (Notify.SUCCESS, Outcome.REFUSED, False, []),
        (Notify.FAILURE, Outcome.REFUSED, False, ["failed"]),
        (Notify.SUCCESS, Outcome.DELIVERED, False, ["relayed"]),
        (Notify.SUCCESS, Outcome.DELIVERED, True, []),
        (Notify.FAILURE, Outcome.DELIVERED, False, []),
    ],
)
@pytest.mark.parametrize("reports", [Reports.ALL, Reports.REQUESTED])
async def test_notify_is_honoured(
    told: Told, notify: Notify, fate: Outcome, dsn: bool, actions: list[str], reports: Reports
) -> None:
    """RFC 3461 4.1, 5.2.2: a server without DSN reports no success, so we say that we passed it on."""
    await told.begin(TenantPolicy(reports=reports))
    told.fate, told.dsn = {"a@x.example": fate}, dsn
    done = DeliveryState.REFUSED if fate is Outcome.REFUSED else DeliveryState.DELIVERED
    await told.ended(await told.send("a@x.example", dsn=(None, None, [(int(notify), None)])), done)
    found = await reported(told, len(actions))
    assert [f"Action: {action}".encode() in report.body for action, report in zip(actions, found, strict=True)] == (
        [True] * len(actions)
    )


@pytest.mark.parametrize("reports", [Reports.NONE, Reports.REQUESTED])
async def test_a_tenant_may_want_none(told: Told, reports: Reports) -> None:
    await told.begin(TenantPolicy(reports=reports))
    told.fate = {"a@x.example": Outcome.REFUSED}
    await told.ended(await told.send("a@x.example"), DeliveryState.REFUSED)
    assert told.reports == []


async def test_a_long_delay_is_told_once_and_the_end_of_it() -> None:
    house = Told(report_delay_seconds=2, retry_give_up_seconds=20, retry_max_seconds=1)
    await house.begin()
    house.fate = {"a@x.example": Outcome.DEFERRED}
    await house.ended(await house.send("a@x.example"), DeliveryState.REFUSED)
    first, second = await reported(house, 2)
    assert b"Action: delayed" in first.body
    assert b"Will-Retry-Until:" in first.body
    assert b"Action: failed" in second.body
    assert b"Status: 5.4.7" in second.body
    await house.end()


@pytest.mark.parametrize(
    ("notify", "reports", "is_told"),
    [
        (None, Reports.ALL, True),
        (None, Reports.REQUESTED, False),
        (Notify.DELAY, Reports.REQUESTED, True),
        (Notify.FAILURE, Reports.ALL, False),
        (Notify.NEVER, Reports.ALL, False),
        (Notify.DELAY, Reports.NONE, False),
    ],
)
async def test_a_long_delay_without_an_attempt_is_told_once(
    notify: Notify | None, reports: Reports, is_told: bool
) -> None:
    """Its next hop is kept busy by limits or back-off, so nothing was ever asked of it (RFC 3461 4.1, RFC 3464 2.3)."""
    house = Told(report_delay_seconds=2, retry_give_up_seconds=9)
    await house.begin(TenantPolicy(reports=reports))
    house.fate, house.busy = {"a@x.example": Outcome.DEFERRED}, {"a@x.example"}
    asked = None if notify is None else (None, None, [(int(notify), None)])
    envelope_id = await house.send("a@x.example", dsn=asked)
    await asyncio.sleep(8)
    assert len(house.transport.jobs) > 10, "it was looked at often"
    assert (await house.store.message(envelope_id)).deliveries[0].attempts == ()
    assert len(house.reports) == is_told
    for report in house.reports:
        assert b"Action: delayed" in report.body
        assert b"x-smtp-proxy; so" in report.body
        assert b"Will-Retry-Until:" in report.body
        assert b"Last-Attempt-Date:" not in report.body, "there was none"
        assert b"Remote-MTA:" not in report.body, "nothing was asked of it"
    await house.end()


async def test_a_delay_is_told_once_whether_attempted_or_not() -> None:
    house = Told(report_delay_seconds=2, retry_give_up_seconds=60, retry_max_seconds=1)
    await house.begin()
    house.fate, house.busy = {"a@x.example": Outcome.DEFERRED}, {"a@x.example"}
    await house.send("a@x.example")
    await reported(house, 1)
    house.busy = set()
    await asyncio.sleep(5)
    assert len(house.reports) == 1
    await house.end()


async def test_a_delay_beyond_its_age_says_when_postponed_mail_is_given_up() -> None:
    house = Told(report_delay_seconds=4, retry_give_up_seconds=3)
    await house.begin()
    house.fate, house.busy = {"a@x.example": Outcome.DEFERRED}, {"a@x.example"}
    await house.send("a@x.example")
    (report,) = await reported(house, 1)
    said = re.search(rb"Will-Retry-Until: (.*)\r\n", report.body)
    assert said is not None
    until = parsedate_to_datetime(said[1].decode()) - house.transport.jobs[0].envelope.received_at
    assert 5 <= until.total_seconds() <= 6
    await house.end()


async def test_a_tenants_own_age(told: Told) -> None:
    await told.begin(TenantPolicy(max_age_seconds=3))
    told.fate = {"a@x.example": Outcome.DEFERRED}
    envelope_id = await told.send("a@x.example")
    await told.ended(envelope_id, DeliveryState.REFUSED)
    delivery = (await told.store.message(envelope_id)).deliveries[0]
    assert delivery.attempts[-1].reply_text.startswith("given up after 3 seconds")


# -- suppressions


async def test_a_hard_bounce_suppresses_where_the_tenant_wants_that(told: Told) -> None:
    await told.begin(TenantPolicy(suppress_hard_bounces=True, reports=Reports.NONE))
    told.fate = {"Gone@x.example": Outcome.REFUSED}
    await told.ended(await told.send("Gone@x.example"), DeliveryState.REFUSED)
    jobs = len(told.transport.jobs)
    envelope_id = await told.send("gone@x.example", "other@x.example")
    await told.ended(envelope_id, DeliveryState.REFUSED, DeliveryState.DELIVERED)
    assert [r.address for job in told.transport.jobs[jobs:] for r in job.recipients] == ["other@x.example"]
    (attempt,) = (await told.store.message(envelope_id)).deliveries[0].attempts
    assert (attempt.kind, attempt.reply_code, attempt.enhanced_code, attempt.remote) == (Kind.LOCAL, 0, "5.7.1", "")
    assert "550 5.1.1 so" in attempt.reply_text


async def test_a_hard_bounce_of_mail_from_the_null_path_suppresses_and_is_not_reported(told: Told) -> None:
    await told.begin(TenantPolicy(suppress_hard_bounces=True))
    told.fate = {"gone@x.example": Outcome.REFUSED}
    await told.ended(await told.send("gone@x.example", reverse_path=""), DeliveryState.REFUSED)
    assert [s.address for s in await told.store.list_suppressions(told.tenant.id)] == ["gone@x.example"]
    assert len(told.transport.jobs) == 1, "and nobody is told (RFC 5321 4.5.5)"


async def test_nothing_is_suppressed_unasked(told: Told) -> None:
    await told.begin()
    told.fate = {"gone@x.example": Outcome.REFUSED}
    await told.ended(await told.send("gone@x.example"), DeliveryState.REFUSED)
    assert await told.store.list_suppressions(told.tenant.id) == []


async def test_when_all_are_suppressed_nothing_goes_out(told: Told) -> None:
    await told.begin()
    await told.store.add_suppressions(told.tenant.id, ["a@x.example"], "asked us to")
    await told.ended(await told.send("a@x.example"), DeliveryState.REFUSED)
    (report,) = await reported(told, 1)
    assert b"asked us to" in report.body
    assert len(told.transport.jobs) == 1


# -- dead letters


async def test_a_replayed_letter_has_its_whole_life_again() -> None:
    house = Told(retry_give_up_seconds=10)
    await house.begin(TenantPolicy(reports=Reports.NONE))
    house.fate = {"a@x.example": Outcome.DEFERRED}
    envelope_id = await house.send("a@x.example")
    await house.ended(envelope_id, DeliveryState.REFUSED)
    (letter,) = await house.store.dead_letters()
    assert (letter.envelope_id, letter.enhanced_code, letter.kind) == (envelope_id, "5.4.7", Kind.SOFT)
    before = letter.attempt_count
    assert await house.store.replay([envelope_id]) == [envelope_id]

    async def tried_again() -> bool:
        return (await house.store.message(envelope_id)).deliveries[0].attempt_count >= before + 3

    await eventually(tried_again, 9)
    house.fate = {}
    await house.ended(envelope_id, DeliveryState.DELIVERED)
    attempts = (await house.store.message(envelope_id)).deliveries[0].attempts
    assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))
    first, second = (attempts[before + n].started_at - attempts[before + n - 1].finished_at for n in (1, 2))
    assert first < second, "the schedule begins anew"
    await house.end()
