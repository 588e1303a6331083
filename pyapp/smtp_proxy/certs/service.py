"""`smtp-proxy serve certs`: one issuer per fleet, and a listener for HTTP-01 in every replica of it.

Whoever holds the lock looks at what is wanted: at the start, daily around 02:00 UTC, when a failed attempt may be tried
again, and when an operator asks. The others answer challenges and wait for the lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from smtp_proxy.aws.logins import sealing_keys_when_there
from smtp_proxy.certs import declared, schedule
from smtp_proxy.certs.alerts import Alert, Alerter
from smtp_proxy.certs.backup import Backup
from smtp_proxy.certs.dns import provider_of
from smtp_proxy.certs.issuer import Issuer
from smtp_proxy.certs.responder import answering
from smtp_proxy.clock import Clock, SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.errors import CertificateProblem, IssuanceFailed, SmtpProxyError, StoreError, StoreUnavailable
from smtp_proxy.model.certificate import CertificateOrder, StoredCertificate
from smtp_proxy.store.arrival import connect_when_there
from smtp_proxy.store.certificates import OrderAttempt
from smtp_proxy.telemetry import emf, health
from smtp_proxy.telemetry.lifecycle import Lifecycle
from smtp_proxy.telemetry.metrics import CERTIFICATE_ATTEMPTS, CERTIFICATE_DAYS_LEFT, CERTIFICATE_OVERDUE
from smtp_proxy.telemetry.tasks import end

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from smtp_proxy.store import Store
    from smtp_proxy.store.leader import Leadership

log = logging.getLogger(__name__)

LOCK_NAME: Final = "certificates"
_STANDBY_SECONDS: Final = 10.0  # how long a fleet may be without an issuer
_LOOK_SECONDS: Final = 60.0  # so a clock that jumps is noticed within a minute
_KEEP: Final = timedelta(days=30)  # certificates that ended and are no longer current
_SECONDS_PER_DAY: Final = 86_400.0


async def run(settings: Settings) -> None:
    """Look after certificates until SIGTERM or SIGINT.

    Raises ConfigurationError, StoreMisconfigured, SchemaMismatch: the operator has to act.
    """
    lifecycle, clock = Lifecycle(settings.shutdown_timeout_seconds), SystemClock()
    lifecycle.install_signals()
    async with health.starting(settings.health_host, settings.health_port, service="certs") as readiness:
        dns, wanted = provider_of(settings), declared.declared(settings.acme_certificates)
        keys = await sealing_keys_when_there(settings, lifecycle)
        store = await connect_when_there(settings, "certs", lifecycle, accepts=False)
        if keys is None or store is None:
            return
        try:
            issuer, backup = Issuer(settings, store, keys, dns, clock), Backup(settings, keys)
            keeper = Keeper(settings, store, issuer, Alerter(settings), backup, clock, wanted)
            await _serve(settings, lifecycle, readiness, store, keeper)
        finally:
            await store.close()
    log.info("left", extra={"action": "left"})


class Keeper:
    """Keeps every wanted certificate current."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        issuer: Issuer,
        alerter: Alerter,
        backup: Backup,
        clock: Clock,
        wanted: list[CertificateOrder],
    ) -> None:
        self._settings = settings
        self._store = store
        self._issuer = issuer
        self._alerter = alerter
        self._backup = backup
        self._clock = clock
        self._wanted = wanted
        self._told = asyncio.Event()
        self._declared = False  # since this replica leads
        self._told_ends: dict[UUID, datetime] = {}  # by certificate, when people were last told of its end
        self._daily: datetime | None = None  # None: at once

    async def run(self) -> None:
        """For ever: lead, or wait for the lead."""
        async with self._store.leader(LOCK_NAME) as leadership:
            while True:
                wait = _STANDBY_SECONDS
                with contextlib.suppress(StoreUnavailable):  # tried again soon
                    self._declared = self._declared and leadership.held
                    if await leadership.try_acquire():
                        wait = await self._lead(leadership)
                    else:
                        _forget()  # what it found while it led
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._told.wait()
                self._told.clear()

    async def listen(self) -> None:
        """Hear what operators ask for; for ever."""
        await self._store.listen_certificate_orders(self._told.set)

    async def round(self, leads: Callable[[], bool] = lambda: True) -> None:
        """Look at everything that is wanted, once, for as long as this replica `leads`. Raises StoreUnavailable."""
        current = {c.name: c for c in await self._store.list_fleet_certificates()}
        orders = await self._store.list_certificate_orders()
        for order in orders:
            if not leads():
                return  # An attempt takes a minute, and another replica may be at it by now.
            certificate = current.get(order.name) or await self._restored(order)
            await self._look(order, certificate)
        await self._tell_ends([c for c in current.values() if c.name not in {order.name for order in orders}])
        await self._measure({order.name for order in orders})
        await self._store.forget_fleet_certificates(self._clock.now() - _KEEP)

    async def declare(self) -> None:
        """Write down what the settings want; what they no longer want is not renewed, and serves on till its end."""
        names = {order.name for order in self._wanted}
        for order in self._wanted:
            await self._store.put_certificate_order(order)
        for order in await self._store.list_certificate_orders():
            if order.declared_by == "file" and order.name not in names:
                await self._store.remove_certificate_order(order.name)

    # -- below

    async def _lead(self, leadership: Leadership) -> float:
        """One look; returns the seconds until the next."""
        if not self._declared:
            log.info("this replica issues certificates", extra={"action": "leads"})
            await self.declare()
            self._declared = True
        await self.round(lambda: leadership.held)
        now = self._clock.now()
        if self._daily is None or self._daily <= now:
            self._daily = schedule.next_daily(now, self._settings.acme_jitter_seconds)
        tries = [o.next_try_at for o in await self._store.list_certificate_orders() if o.next_try_at is not None]
        until = min([self._daily, *(at for at in tries if at > now)])
        return min(max((until - now).total_seconds(), 0.05), _LOOK_SECONDS)

    async def _look(self, order: CertificateOrder, certificate: StoredCertificate | None) -> None:
        now = self._clock.now()
        if certificate is not None and self._may_ask(certificate, now):
            await self._issuer.look_at_renewal(certificate)
            (certificate, *_) = await self._store.list_fleet_certificates(order.name) or [certificate]
        if (why := schedule.why_due(order, certificate, self._issuer.directory, now)) is None:
            return
        log.info("certificate %s is due: %s", order.name, why, extra={"action": "certificate_due"})
        again = schedule.retry_at(order.attempts + 1, now, self._settings.acme_retry_seconds, None)
        await self._store.begin_certificate_attempt(order, again)
        try:
            issued = await self._issuer.issue(order, certificate)
        except StoreUnavailable:
            raise  # Not the CA's fault, and nothing can be written down.
        except SmtpProxyError as error:
            await self._failed(order, certificate, error)
            return
        CERTIFICATE_ATTEMPTS.labels("ok").inc()
        await self._store.record_certificate_attempt(OrderAttempt(order.name))
        await self._backup.save(issued)

    async def _failed(
        self, order: CertificateOrder, certificate: StoredCertificate | None, error: SmtpProxyError
    ) -> None:
        """Write it down, and tell people if it is time."""
        CERTIFICATE_ATTEMPTS.labels("failed").inc()
        now, failed = self._clock.now(), order.attempts + 1
        after = error.retry_after if isinstance(error, IssuanceFailed) else None
        if isinstance(error, CertificateProblem):
            after = now + schedule.RETRY_MAX  # The CA has issued, and counts; it was we who did not take it.
        again = schedule.retry_at(failed, now, self._settings.acme_retry_seconds, after)
        ends = None if certificate is None else certificate.not_after
        alerted = order.alerted_at
        if schedule.should_alert(order, failed, ends, now):
            alerted = now
            await self._alerter.tell(Alert(order.name, order.names, str(error), failed, again, ends))
        else:
            log.warning("certificate %s: %s", order.name, error, extra={"action": "certificate_failed"})
        await self._store.record_certificate_attempt(OrderAttempt(order.name, str(error), again, alerted))

    async def _tell_ends(self, undeclared: list[StoredCertificate]) -> None:
        """Of what was imported, or is no longer wanted, and serves."""
        now = self._clock.now()
        for certificate in undeclared:
            if not schedule.ends_soon(certificate.not_after, self._told_ends.get(certificate.id), now):
                continue
            self._told_ends[certificate.id] = now
            why = "nobody renews it: `certs declare` or `certs import` another one"
            await self._alerter.tell(Alert(certificate.name, certificate.names, why, 0, None, certificate.not_after))

    async def _restored(self, order: CertificateOrder) -> StoredCertificate | None:
        """Of the backup, where the store has none: a fresh installation does not ask the CA for what is there."""
        found = await self._backup.load(order, self._clock.now())
        if found is not None:
            try:
                await self._store.add_fleet_certificate(found)
            except StoreUnavailable:
                raise
            except StoreError as error:
                log.warning("certificate %s is not restored: %s", order.name, error, extra={"action": "not_restored"})
                return None
        return found

    async def _measure(self, renewed: set[str]) -> None:
        """After a look, with what it has brought; `renewed` are those that somebody renews."""
        found = {c.name: c for c in await self._store.list_fleet_certificates()}
        now = self._clock.now()
        _forget()
        for name, certificate in found.items():
            left = certificate.not_after - now
            CERTIFICATE_DAYS_LEFT.labels(name).set(left.total_seconds() / _SECONDS_PER_DAY)
            if name in renewed:
                CERTIFICATE_OVERDUE.labels(name).set(schedule.overdue(certificate, now).total_seconds())

    def _may_ask(self, certificate: StoredCertificate, now: datetime) -> bool:
        """Whether this CA is to be asked when to renew it."""
        asked = certificate.ask_again_at
        return certificate.directory == self._issuer.directory and (asked is None or asked <= now)


def _forget() -> None:
    CERTIFICATE_DAYS_LEFT.clear()
    CERTIFICATE_OVERDUE.clear()


async def _serve(
    settings: Settings, lifecycle: Lifecycle, readiness: health.Readiness, store: Store, keeper: Keeper
) -> None:
    async def pinged() -> str | None:
        await store.ping()
        return None

    async with (
        answering(settings.acme_http_host, settings.acme_http_port, store) as port,
        emf.reporting(settings, "certs", clock=SystemClock()),
    ):
        log.info(
            "listening: http-01 on %s:%s",
            settings.acme_http_host,
            port,
            extra={"action": "listening", "listener": "http-01"},
        )
        tasks = [
            asyncio.create_task(keeper.listen(), name="certificate-orders"),
            asyncio.create_task(keeper.run(), name="certificate-keeper"),
        ]
        for task in tasks:
            lifecycle.watch(task)
        try:
            with readiness.of({"postgres": pinged}):
                await lifecycle.run_until_stopped()
        finally:
            await end(tasks)
