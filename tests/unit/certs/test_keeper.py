"""When the keeper asks the CA, and when it must not. The real CA is in tests/integration/certs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from smtp_proxy.certs.alerts import Alert, Alerter
from smtp_proxy.certs.backup import Backup
from smtp_proxy.certs.issuer import Issuer
from smtp_proxy.certs.service import Keeper
from smtp_proxy.clock import ManualClock
from smtp_proxy.config import Settings
from smtp_proxy.errors import CertificateProblem, IssuanceFailed, SmtpProxyError, StoreUnavailable
from smtp_proxy.model.certificate import CertificateOrder, StoredCertificate
from smtp_proxy.sealing import Sealed, SecretKeys
from smtp_proxy.store import MemoryStore, Store
from smtp_proxy.store.ids import new_id
from smtp_proxy.telemetry.metrics import REGISTRY

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
DIRECTORY = "https://ca.example/dir"


@dataclass
class CountedIssuer:
    """Counts what the CA would be asked for, and answers as it is told."""

    store: MemoryStore
    clock: ManualClock
    outcome: SmtpProxyError | None = None
    asked: list[str] = field(default_factory=list)
    directory: str = DIRECTORY
    at: datetime = NOW  # by the CA's clock

    async def issue(self, order: CertificateOrder, _before: StoredCertificate | None) -> StoredCertificate:
        self.asked.append(order.name)
        await asyncio.sleep(0)
        if self.outcome is not None:
            raise self.outcome
        now = self.clock.now()
        at, ends = self.at, self.at + timedelta(days=90)
        made = StoredCertificate(new_id(now), order.name, order.names, "", Sealed("", b""), at, ends, self.directory)
        await self.store.add_fleet_certificate(made)
        return made

    async def look_at_renewal(self, _certificate: StoredCertificate) -> None:
        return


class Recorded(Alerter):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.alerts: list[Alert] = []

    async def tell(self, alert: Alert) -> None:
        self.alerts.append(alert)


class Scene:
    def __init__(self, *names: str) -> None:
        self.clock = ManualClock(NOW)
        self.store = MemoryStore(clock=self.clock)
        self.issuer = CountedIssuer(self.store, self.clock)
        settings = Settings(acme_retry_seconds=60)
        orders = [CertificateOrder(name, (f"{name}.example.com",), declared_by="file") for name in names]
        self.alerter = Recorded(settings)
        self.keeper = Keeper(
            settings,
            cast("Store", self.store),
            cast("Issuer", self.issuer),
            self.alerter,
            Backup(settings, SecretKeys({"k1": bytes(32)})),
            self.clock,
            orders,
        )


def measured(metric: str, name: str) -> float | None:
    return REGISTRY.get_sample_value(f"smtp_certificate_{metric}", {"name": name})


async def test_for_how_long_a_renewal_is_overdue() -> None:
    """By its own schedule, a third of the life, whatever the life is; of one that nobody renews, nothing."""
    scene = Scene("mx")
    await scene.keeper.declare()
    await scene.keeper.round()
    imported = CertificateOrder("imported", ("imported.example.com",))
    await scene.issuer.issue(imported, None)
    for day, overdue in ((59, 0), (61, 1), (65, 5)):
        scene.clock.advance((NOW + timedelta(days=day) - scene.clock.now()).total_seconds())
        scene.issuer.outcome = IssuanceFailed("port 80 is closed")
        await scene.keeper.round()
        assert measured("overdue_seconds", "mx") == overdue * 86_400
    assert measured("overdue_seconds", "imported") is None
    assert measured("days_left", "imported") == 25
    scene.clock.advance(86_400)
    scene.issuer.outcome, scene.issuer.at = None, scene.clock.now()
    await scene.keeper.round()
    assert (measured("overdue_seconds", "mx"), measured("days_left", "mx")) == (0, 90)


async def test_who_does_not_lead_any_more_says_nothing_of_what_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another replica renews it, and what this one found would be in alarm for ever."""
    scene = Scene("mx")
    leads = iter([True, False])

    class Lost:
        held = True

        async def try_acquire(self) -> bool:
            return next(leads, False)

    @contextlib.asynccontextmanager
    async def leader(_name: str) -> AsyncIterator[Lost]:
        yield Lost()

    monkeypatch.setattr(scene.store, "leader", leader)
    running = asyncio.create_task(scene.keeper.run())
    seen = []
    for _ in range(2):
        await asyncio.sleep(0.05)
        seen.append((measured("overdue_seconds", "mx"), measured("days_left", "mx")))
        scene.keeper._told.set()
    running.cancel()
    assert seen == [(0, 90), (None, None)]


async def test_what_can_not_be_written_down_is_not_ordered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Postgres answers and can not write, as on a full disk: the CA would be asked every few seconds."""
    scene = Scene("mx")
    await scene.keeper.declare()

    async def refuse(*_: Any) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(scene.store, "begin_certificate_attempt", refuse)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await scene.keeper.round()
    assert scene.issuer.asked == []


async def test_what_was_broken_off_waits_as_what_failed() -> None:
    """A crash, or Postgres away, after the CA was asked."""
    scene = Scene("mx")
    await scene.keeper.declare()
    scene.issuer.outcome = StoreUnavailable("gone")
    with pytest.raises(StoreUnavailable):
        await scene.keeper.round()
    scene.issuer.outcome = None
    await scene.keeper.round()
    assert scene.issuer.asked == ["mx"], "it waits"
    scene.clock.advance(76)
    await scene.keeper.round()
    assert scene.issuer.asked == ["mx", "mx"]
    (order,) = await scene.store.list_certificate_orders()
    assert (order.attempts, order.next_try_at, order.last_error) == (0, None, None)


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_wish_by_another_clock_is_fulfilled_once(hours: int) -> None:
    scene = Scene("mx")
    await scene.keeper.declare()
    await scene.keeper.round()
    scene.clock.advance(3600 * hours)  # of the operator's machine
    await scene.store.ask_for_certificate("mx")
    scene.clock.advance(-3600 * hours)
    for _ in range(3):
        await scene.keeper.round()
    assert scene.issuer.asked == ["mx", "mx"]


async def test_a_clock_that_is_far_ahead_orders_once_a_day() -> None:
    scene = Scene("mx")
    scene.clock.advance(timedelta(days=80).total_seconds())
    await scene.keeper.declare()
    for _ in range(24 * 60):
        await scene.keeper.round()
        scene.clock.advance(59)
    assert scene.issuer.asked == ["mx"]
    scene.clock.advance(3600)
    await scene.keeper.round()
    assert scene.issuer.asked == ["mx", "mx"]


async def test_what_the_ca_issued_and_we_refuse_is_not_ordered_again_soon() -> None:
    scene = Scene("mx")
    await scene.keeper.declare()
    scene.issuer.outcome = CertificateProblem("it is not valid yet: is the clock right?")
    for _ in range(5 * 60):
        await scene.keeper.round()
        scene.clock.advance(60)
    assert scene.issuer.asked == ["mx"]
    scene.clock.advance(3 * 3600)
    await scene.keeper.round()
    assert scene.issuer.asked == ["mx", "mx"]


async def test_who_no_longer_leads_goes_no_further() -> None:
    scene = Scene("a", "b", "c")
    await scene.keeper.declare()
    await scene.keeper.round(lambda: len(scene.issuer.asked) < 2)
    assert scene.issuer.asked == ["a", "b"]


async def test_what_the_settings_want_is_declared_though_postgres_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene("mx")
    tries = 0
    put = scene.store.put_certificate_order

    async def put_later(order: CertificateOrder) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise StoreUnavailable("for a moment")
        await put(order)

    monkeypatch.setattr(scene.store, "put_certificate_order", put_later)
    monkeypatch.setattr("smtp_proxy.certs.service._STANDBY_SECONDS", 0.01)
    task = asyncio.create_task(scene.keeper.run())
    try:
        async with asyncio.timeout(5):
            while not scene.issuer.asked:
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
    assert tries == 2
    assert scene.issuer.asked == ["mx"]


async def test_a_refusal_is_tried_ever_less_often() -> None:
    """REQ-INFRA-TLS-006."""
    scene = Scene("mx")
    await scene.keeper.declare()
    scene.issuer.outcome = IssuanceFailed("rateLimited")
    for _ in range(60):
        await scene.keeper.round()
        scene.clock.advance(60)
    (order,) = await scene.store.list_certificate_orders()
    assert order.attempts == len(scene.issuer.asked)
    assert 4 <= order.attempts <= 6


async def test_the_end_of_what_nobody_renews_is_told_each_day() -> None:
    """Imported, or no longer declared; nobody would hear of it before clients do."""
    scene = Scene("mx")
    await scene.keeper.declare()
    await scene.keeper.round()
    await scene.store.remove_certificate_order("mx")
    scene.clock.advance(timedelta(days=75).total_seconds())
    await scene.keeper.round()
    assert scene.alerter.alerts == []
    for _ in range(3 * 24):
        scene.clock.advance(3600)
        await scene.keeper.round()
    alerts = scene.alerter.alerts
    assert [alert.certificate for alert in alerts] == ["mx"] * 3, "14, 13 and 12 days before its end"
    assert "ends 2027-02-24 12:00Z: nobody renews it" in alerts[0].text()
    assert alerts[0].fields()["event"] == "certificate_ends"
    assert scene.issuer.asked == ["mx"]
