"""The worker: claim, load, deliver, record, acknowledge.

    intake ──claims──▶ hand ──one turn each──▶ deliveries ──▶ outcomes ──▶ acknowledgements
                         ▲ leases are renewed until recorded ┘

Each arrow is a queue of its own and each stage its own task, so nothing waits for a whole batch: a delivery holds
one of `worker_concurrency` turns while it makes progress (`hand`), and a transaction takes what has finished by the
time it starts.

At least once: a message is offered again only when its outcome was not recorded, and that happens only when this
process dies or leaves at its deadline in the middle of a delivery. What it may have sent by then is in the ledger, and
sent again or held by its tenant's policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import socket
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from smtp_proxy.aws import logins
from smtp_proxy.aws.protection import protecting
from smtp_proxy.clock import SystemClock
from smtp_proxy.delivery.governor import Governor
from smtp_proxy.delivery.routing.start import RoutesOfSettings
from smtp_proxy.delivery.smtp import SmtpTransport
from smtp_proxy.errors import StoreUnavailable, StreamUnavailable
from smtp_proxy.model.attempt import Attempt, Kind, Outcome, Postponed, RecipientResult
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.policy import OnUnknown
from smtp_proxy.store.arrival import ToldToStop, connect_when_there, when_there
from smtp_proxy.store.store import Store
from smtp_proxy.stream.consumer import Consumer
from smtp_proxy.stream.depth import Depth
from smtp_proxy.stream.places import Places
from smtp_proxy.stream.publisher import Publisher
from smtp_proxy.telemetry import emf, health
from smtp_proxy.telemetry.lifecycle import Lifecycle
from smtp_proxy.telemetry.metrics import DELIVERY_SECONDS, QUEUE_SECONDS, SUPPRESSED, WORKER_BUSY
from smtp_proxy.telemetry.tasks import end
from smtp_proxy.worker.aftermath import Aftermath, is_quiet, suppressed
from smtp_proxy.worker.hand import SLOW_SECONDS, Hand, Held, Turn
from smtp_proxy.worker.intake import Intake
from smtp_proxy.worker.lease import Leases
from smtp_proxy.worker.ledger import AttemptLedger
from smtp_proxy.worker.outcomes import Finished, Outcomes
from smtp_proxy.worker.policies import Policies
from smtp_proxy.worker.retention import Retention
from smtp_proxy.worker.retry import RetryPolicy, counted
from smtp_proxy.worker.signing import DomainSigner
from smtp_proxy.worker.sweeper import Sweeper
from smtp_proxy.worker.tenant_names import TenantNames
from smtp_proxy.worker.webhook_post import Poster
from smtp_proxy.worker.webhooks import Webhooks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from datetime import datetime
    from uuid import UUID

    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings
    from smtp_proxy.delivery.transport import Ledger, Transport
    from smtp_proxy.model.envelope import Job, Recipient
    from smtp_proxy.model.policy import TenantPolicy
    from smtp_proxy.sealing import SecretKeys
    from smtp_proxy.stream.interface import StreamConsumer, StreamPublisher
    from smtp_proxy.worker.lease import Claim
    from smtp_proxy.worker.ports import MailStore

log = logging.getLogger(__name__)

# What is left to do after the deadline: give back what is claimed, leave the group.
_LEAVING_SECONDS: Final = 3.0
# Objects made and not yet ended before the collector looks at the young ones, and of what is older how seldom. Mail in
# hand is some thousand objects, few of them in circles; by default (700, 10, 10) they are looked at at every turn.
_COLLECT_AFTER: Final = (20_000, 10, 10)
# A delivery that goes on for longer is worth keeping the process for.
_LONG_SECONDS: Final = 5.0
_CRASHED: Final = "internal error, see the worker's log"


class Worker:
    """All stages of one worker process over given rooms; `run` of this module puts the real ones in."""

    def __init__(
        self,
        settings: Settings,
        store: MailStore,
        publisher: StreamPublisher,
        consumer: StreamConsumer,
        transport: Transport,
        *,
        lifecycle: Lifecycle,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock or SystemClock()
        self._chance = chance
        self._policy = RetryPolicy.of(settings)
        self._publisher = publisher
        self._transport = transport
        self._lifecycle = lifecycle
        self._held: dict[Claim, Held] = {}  # what was started and is not recorded
        self._token = contextlib.ExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._deliveries: set[asyncio.Task[None]] = set()
        self._intake_task: asyncio.Task[None] | None = None
        self.leases = Leases(store, settings.worker_lease_seconds, self._clock, self._give_back)
        self.hand = Hand(settings.worker_concurrency, settings.worker_batch_messages)
        self.intake = Intake(settings, store, consumer, self.leases, self.hand, clock=self._clock)
        self.ledger = AttemptLedger(store, self.leases.holds, self._clock)
        self.outcomes = Outcomes(store, self._recorded, self._lost, self._publish)
        self.policies = Policies(store)
        self._aftermath = Aftermath(settings)

    # -- life

    def start(self) -> None:
        """Start every stage; a stage that fails stops the service."""
        self._intake_task = self._start(self.intake.run(), "intake")
        self._start(self.intake.run_acknowledging(), "acknowledgements")
        self._start(self.leases.run(), "leases")
        self._start(self.ledger.run(), "ledger")
        self._start(self.outcomes.run(), "outcomes")
        self._start(self.policies.run(), "policies")
        self._start(self._hand_out(), "deliveries")
        self._start(self._lend_slow_turns(), "turns")

    async def close(self) -> None:
        """Take nothing more, and drop what has not been started. What is under way goes on."""
        if self._intake_task is not None:
            await end([self._intake_task])
        for held in self.hand.drop_waiting():
            self._drop(held)
        if self._held:
            self._token.enter_context(self._lifecycle.hold("messages under way"))

    async def leave(self) -> None:
        """Break off what is still under way, and give back all that is claimed."""
        await end([*self._tasks, *self._deliveries])
        self._token.close()
        try:
            async with asyncio.timeout(_LEAVING_SECONDS):
                await self.leases.release_all()
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("claims are left to run out: %s", error, extra={"action": "release_failed"})

    def is_long_at_it(self) -> bool:
        """Something is under way that may outlast a stop; the rest is done, or given back, in less than that."""
        oldest = next(iter(self._held.values()), None)
        return oldest is not None and self._clock.monotonic() - oldest.began_at > _LONG_SECONDS

    def _start(self, stage: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(stage, name=name)
        self._lifecycle.watch(task)
        self._tasks.append(task)
        return task

    # -- one job

    async def _hand_out(self) -> None:
        while True:
            held, turn = await self.hand.take()
            if self.leases.holds(held.claim):
                held.began_at = self._clock.monotonic()
                self._held[held.claim] = held
                delivery = asyncio.create_task(self._deliver(held, turn))
                self._deliveries.add(delivery)
                delivery.add_done_callback(self._deliveries.discard)
            else:
                # Postgres was away for longer than the lease: by now it may be someone else's.
                turn.end()
                self._drop(held)

    async def _lend_slow_turns(self) -> None:
        looked_at = self._clock.monotonic()
        while True:
            await asyncio.sleep(SLOW_SECONDS / 4)
            self.hand.lend_slow()
            before, looked_at = looked_at, self._clock.monotonic()
            WORKER_BUSY.inc((looked_at - before) * self.hand.busy_share)

    async def _deliver(self, held: Held, turn: Turn) -> None:
        job = held.claim.job
        started_at, began = self._clock.now(), self._clock.monotonic()
        if job.recipients[0].attempt_number == 1:
            QUEUE_SECONDS.observe(max(0.0, (started_at - job.envelope.received_at).total_seconds()))
        ledger = self.ledger.of(held.claim)
        try:
            results = await self._results(job, ledger, turn)
        except Exception:
            # A fault of ours must not stop the others, nor lose this one: it is tried again like any deferred mail.
            # What was being sent may have been taken all the same.
            log.exception("a delivery failed in an unforeseen way", extra=_named(job, "delivery_crashed"))
            results = [
                RecipientResult(r.number, _after_crash(r.number in ledger.sent), 0, "", _CRASHED, "", Kind.LOCAL)
                for r in job.recipients
            ]
        DELIVERY_SECONDS.observe(self._clock.monotonic() - began)
        self.hand.delivered(turn)
        await self._settle(held, results, started_at)

    async def _settle(self, held: Held, results: list[RecipientResult], started_at: datetime) -> None:
        """Hand on what is to be recorded; a fault of ours leaves nothing claimed for ever with nobody at work on it."""
        try:
            finished = await self._with_aftermath(held, results, started_at)
        except Exception:
            log.exception("recorded without what follows from it", extra=_named(held.claim.job, "aftermath_crashed"))
            try:
                finished = self._finished(held, results, started_at)
            except Exception:
                # What was sent is in the ledger, and counts as of unknown outcome.
                log.exception("given back unrecorded", extra=_named(held.claim.job, "outcome_crashed"))
                self.leases.drop(held.claim)
                self._let_go(held.claim)
                return
        self.outcomes.add(finished)

    async def _with_aftermath(self, held: Held, results: list[RecipientResult], started_at: datetime) -> Finished:
        job = held.claim.job
        if is_quiet(job, results):
            return self._finished(held, results, started_at)
        policy = await self.policies.of(job.envelope.tenant_id)
        finished = self._finished(held, results, started_at, policy)
        finished.then = self._aftermath.of(_attempted(job, finished), finished.attempts, policy, self._clock.now())
        if finished.postponed:
            left = _postponed(job, results, finished)
            finished.then_postponed = self._aftermath.of_postponed(
                job.envelope, left, policy, self._clock.now(), job.lane
            )
        return finished

    async def _results(self, job: Job, ledger: Ledger, turn: Turn) -> list[RecipientResult]:
        """Of all recipients, in the job's order; those that are suppressed go nowhere."""
        wanted = tuple(recipient for recipient in job.recipients if recipient.suppressed is None)
        if len(wanted) == len(job.recipients):
            return await self._sent(job, ledger, turn)
        SUPPRESSED.inc(len(job.recipients) - len(wanted))
        sent = await self._sent(replace(job, recipients=wanted), ledger, turn) if wanted else []
        results = {result.number: result for result in sent}
        return [results.get(recipient.number) or suppressed(recipient) for recipient in job.recipients]

    async def _sent(self, job: Job, ledger: Ledger, turn: Turn) -> list[RecipientResult]:
        if job.trouble is None:
            return await self._transport.deliver(job, ledger, turn)
        # Tried again, and given up in time, as any other mail: it may have been restored by then.
        return [_nothing_to_send(recipient, job.trouble) for recipient in job.recipients]

    def _finished(
        self,
        held: Held,
        results: list[RecipientResult],
        started_at: datetime,
        policy: TenantPolicy | None = None,
    ) -> Finished:
        envelope, worker_id = held.claim.job.envelope, held.claim.lease.worker_id
        now = self._clock.now()
        attempts: list[Attempt] = []
        postponed: list[Postponed] = []
        for recipient, result in zip(held.claim.job.recipients, results, strict=True):
            attempt_number, since = counted(envelope, recipient)
            final, again_at = self._policy.settle(
                result,
                attempt_number=attempt_number,
                received_at=since,
                now=now,
                random=self._chance,
                give_up_seconds=None if policy is None else policy.max_age_seconds,
                holds_unknown=policy is not None and policy.on_unknown is OnUnknown.HOLD,
            )
            if held.claim.job.trouble is not None and attempt_number == 1 and result.outcome is Outcome.DEFERRED:
                # However old it is, nobody gives up mail by a single look at the database.
                again_at = now + timedelta(seconds=self._policy.delay_seconds(1, self._chance()))
                final = result
            if result.postponed_seconds and final.outcome is Outcome.DEFERRED:
                due_at = now + timedelta(seconds=result.postponed_seconds)
                why = result.reply_text
                if result.remote not in why:
                    why = f"{result.remote}: {why}"
                postponed.append(Postponed(envelope.id, recipient.number, worker_id, due_at, why))
                continue
            attempts.append(Attempt(envelope.id, recipient.attempt_number, worker_id, started_at, now, final, again_at))
            if final.outcome is not Outcome.DELIVERED:
                _log_trouble(envelope.id, recipient.address, final, again_at)
        return Finished(held.claim, attempts, postponed=postponed)

    # -- done with a job

    def _recorded(self, finished: Finished) -> None:
        self.leases.settle(finished.claim)
        self._let_go(finished.claim)

    def _lost(self, finished: Finished) -> None:
        self.leases.drop(finished.claim)
        self._let_go(finished.claim)

    def _let_go(self, claim: Claim) -> None:
        held = self._held.pop(claim)
        self.hand.settled(held)
        self.intake.acknowledge(held.entries)
        if not self._held:
            self._token.close()

    def _drop(self, held: Held) -> None:
        """Give up a job that was not started: its rows are released with the lease."""
        self.leases.drop(held.claim)
        self.hand.settled(held)
        self.intake.acknowledge(held.entries)

    async def _give_back(self, released: dict[UUID, Lane]) -> None:
        for lane in set(released.values()):
            await self._publish([envelope_id for envelope_id, of in released.items() if of is lane], lane)

    async def _publish(self, envelope_ids: list[UUID], lane: Lane = Lane.TRANSACTIONAL) -> None:
        with contextlib.suppress(StreamUnavailable):  # They are due at once, so the next sweep finds them.
            await self._publisher.publish(envelope_ids, lane)


def _attempted(job: Job, finished: Finished) -> Job:
    """Without those that were postponed."""
    if not finished.postponed:
        return job
    left = {one.recipient_number for one in finished.postponed}
    return replace(job, recipients=tuple(recipient for recipient in job.recipients if recipient.number not in left))


def _postponed(job: Job, results: list[RecipientResult], finished: Finished) -> list[tuple[Recipient, RecipientResult]]:
    left = {one.recipient_number for one in finished.postponed}
    return [pair for pair in zip(job.recipients, results, strict=True) if pair[0].number in left]


def _nothing_to_send(recipient: Recipient, trouble: str) -> RecipientResult:
    return RecipientResult(recipient.number, Outcome.DEFERRED, 0, "4.3.0", trouble, "", Kind.LOCAL)


def _after_crash(was_sent: bool) -> Outcome:
    return Outcome.UNKNOWN if was_sent else Outcome.DEFERRED


def _log_trouble(envelope_id: UUID, address: str, result: RecipientResult, again_at: datetime | None) -> None:
    log.info(
        "%s: %s %s",
        result.outcome.name.lower(),
        result.reply_code or "no reply:",
        result.reply_text,
        extra={
            "action": "not_delivered",
            "envelope_id": envelope_id,
            "recipient": address,
            "remote": result.remote,
            "next_attempt_at": again_at,
        },
    )


def _named(job: Job, action: str) -> dict[str, object]:
    return {"action": action, "envelope_id": job.envelope.id}


# -- the service


async def run(settings: Settings) -> None:
    """Deliver until told to stop by SIGTERM or SIGINT.

    Raises:
        ConfigurationError, CertificateProblem, StoreMisconfigured, SchemaMismatch: the operator has to act.
        SmtpProxyError: a stage ended that should not have.
    """
    lifecycle = Lifecycle(settings.shutdown_timeout_seconds, settings.shutdown_delay_seconds)
    lifecycle.install_signals()
    await serve(settings, lifecycle)


async def serve(settings: Settings, lifecycle: Lifecycle) -> None:
    """Deliver until `lifecycle` is told to stop; raises as `run`."""
    async with health.starting(settings.health_host, settings.health_port, service="worker") as readiness:
        await _serve(settings, lifecycle, readiness)


async def _serve(settings: Settings, lifecycle: Lifecycle, readiness: health.Readiness) -> None:
    clock = SystemClock()
    names = TenantNames(clock)
    settings = await asyncio.to_thread(logins.with_smarthost, settings)
    # What is wrong with the routes, or with the keys, is said before Postgres is waited for.
    routes = RoutesOfSettings.of(settings, clock, names)
    try:
        secret_keys = await logins.sealing_keys_when_there(settings, lifecycle)
        if secret_keys is None:
            return
        store = await connect_when_there(settings, "worker", lifecycle, accepts=False)
        if store is None:
            return
        try:
            names.ask(store)
            signer = DomainSigner(store, secret_keys, clock)
            with contextlib.suppress(ToldToStop):
                await when_there(signer.load, lifecycle)
                await _serve_mail(settings, lifecycle, readiness, store, routes, signer, secret_keys)
        finally:
            await store.close(_LEAVING_SECONDS)
    finally:
        await routes.close()


async def _serve_mail(
    settings: Settings,
    lifecycle: Lifecycle,
    readiness: health.Readiness,
    store: Store,
    routes: RoutesOfSettings,
    signer: DomainSigner,
    secret_keys: SecretKeys,
) -> None:
    clock = SystemClock()
    poster = Poster(settings)
    publisher, depth, places = Publisher(settings), Depth(settings), Places(settings)
    worker = Worker(
        settings,
        store,
        publisher,
        consumer := Consumer(settings, f"{socket.gethostname()}-{random.getrandbits(48):012x}"),
        transport := SmtpTransport(routes.planner, signer, Governor(clock, places=places)),
        lifecycle=lifecycle,
        clock=clock,
    )
    sweeper = Sweeper(
        settings, store, publisher, depth, clock=clock, calm=worker.leases.calm, hand_over=worker.intake.offer
    )
    worker.start()
    _spare_the_collector()
    sweeping = asyncio.create_task(sweeper.run(), name="sweeper")
    lifecycle.watch(sweeping)
    watching: list[asyncio.Task[None]] = []
    if routes.watched is not None:
        watching.append(asyncio.create_task(routes.watched.run(), name="routes"))
        lifecycle.watch(watching[0])
    signing = asyncio.create_task(signer.run(), name="signing keys")
    lifecycle.watch(signing)
    telling = asyncio.create_task(Webhooks(settings, store, poster, secret_keys, clock).run(), name="webhooks")
    lifecycle.watch(telling)
    lifecycle.on_close("webhooks", lambda: end([telling]))
    keeping = asyncio.create_task(Retention(settings, store, clock).run(), name="retention")
    lifecycle.watch(keeping)
    lifecycle.on_close("retention", lambda: end([keeping]))
    lifecycle.on_close("sweeper", lambda: end([sweeping]))
    lifecycle.on_close("intake", worker.close)
    checks = {"postgres": store.ping, "lifecycle": lambda: _stopping(lifecycle)}
    try:
        with readiness.of(checks):
            async with (
                protecting(settings, worker.is_long_at_it, clock=clock),
                emf.reporting(settings, "worker", clock=clock),
            ):
                host, port = settings.smarthost_host, settings.smarthost_port
                log.info("delivering to %s:%s", host, port, extra={"action": "ready"})
                await lifecycle.run_until_stopped()
    finally:
        await end([sweeping])
        await worker.leave()
        await end([signing, telling, keeping, *watching])
        await poster.close()
        await consumer.close()
        await transport.close()
        await places.close()
        await publisher.close()
        await depth.close()
    log.info("left", extra={"action": "left"})


def _spare_the_collector() -> None:
    """What is loaded by now stays for the life of the process, so it is never looked through again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


async def _stopping(lifecycle: Lifecycle) -> str | None:
    return None if lifecycle.ready else "stopping"
