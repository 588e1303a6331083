"""Issuing and renewing with a real CA (Pebble, with its rejections on) and a real Postgres."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from acme_dns import SECRET, NameServer, Shown, Texts, texts_of_route53
from cryptography import x509
from dns import tsig
from fix_pebble import BrokenDns, Pebble, PebbleDns

from smtp_proxy.certfiles.check import check
from smtp_proxy.certs.alerts import Alert, Alerter
from smtp_proxy.certs.backup import Backup
from smtp_proxy.certs.declared import declared
from smtp_proxy.certs.dns import DnsProvider, provider_of
from smtp_proxy.certs.issuer import Issuer
from smtp_proxy.certs.responder import answering
from smtp_proxy.certs.service import Keeper
from smtp_proxy.clock import ManualClock, SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError
from smtp_proxy.model.certificate import StoredCertificate
from smtp_proxy.sealing import SecretKeys
from smtp_proxy.store import Store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
KEYS = SecretKeys({"k1": bytes(range(32))})


class Recorded(Alerter):
    """Keeps what is told, beside telling it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.alerts: list[Alert] = []

    async def tell(self, alert: Alert) -> None:
        self.alerts.append(alert)
        await super().tell(alert)


@dataclass
class Replica:
    settings: Settings
    issuer: Issuer
    keeper: Keeper
    alerter: Recorded


Make = Callable[..., Replica]


@pytest.fixture
def make(db_settings: Settings, store: Store, pebble: Pebble) -> Make:
    def made(wanted: str, dns: DnsProvider | None = None, clock: Any = None, **changes: Any) -> Replica:
        basics = {"acme_directory": pebble.url, "acme_ca_file": pebble.ca_file, "acme_dns_wait_seconds": 0.0}
        basics["acme_profile"] = "default"  # Pebble chooses one at random where none is named
        settings = db_settings.model_copy(update={**basics, "acme_certificates": wanted, **changes})
        clock = clock or SystemClock()
        issuer, alerter = Issuer(settings, store, KEYS, dns or provider_of(settings), clock), Recorded(settings)
        keeper = Keeper(settings, store, issuer, alerter, Backup(settings, KEYS), clock, declared(wanted))
        return Replica(settings, issuer, keeper, alerter)

    return made


@pytest.fixture
async def responder(store: Store, pebble: Pebble) -> AsyncIterator[None]:
    async with answering("127.0.0.1", pebble.http_port, store):
        yield


async def look(replica: Replica) -> None:
    await replica.keeper.declare()
    await replica.keeper.round()


@contextlib.asynccontextmanager
async def shown_to(pebble: Pebble, texts: Callable[[], Texts]) -> AsyncIterator[Shown]:
    """While it runs, the CA asks a name server that has these texts."""
    async with Shown(texts).running() as shown:
        pebble.stop()
        pebble.dns_server = f"127.0.0.1:{shown.port}"
        await asyncio.to_thread(pebble.start)
        yield shown  # type: ignore[misc]


async def only(store: Store, name: str = "mx.example.com") -> StoredCertificate:
    (found,) = await store.list_fleet_certificates(name)
    return found


def is_good(certificate: StoredCertificate, names: list[str]) -> None:
    key = KEYS.open(certificate.sealed, certificate.context)
    assert sorted(check(certificate.chain.encode(), key, names, datetime.now(UTC), "x").names) == sorted(names)


@pytest.mark.usefixtures("responder")
class TestHttp:
    async def test_issue_and_renew(self, make: Make, store: Store, pebble: Pebble) -> None:
        """REQ-INFRA-TLS-004, REQ-INFRA-TLS-008: by ACME, again when it is asked for; nonces are rejected on the way."""
        replica = make("mx.example.com,mail.example.com")
        await look(replica)
        first = await only(store)
        is_good(first, ["mx.example.com", "mail.example.com"])
        assert first.directory == pebble.url
        leaf, *_ = x509.load_pem_x509_certificates(first.chain.encode())
        assert type(leaf.public_key()).__name__ == "ECPublicKey"
        await look(replica)
        looked = await only(store)
        assert looked.id == first.id, "it is not due"
        assert looked.renew_at is not None, "the CA was asked when to renew (RFC 9773)"
        await store.ask_for_certificate("mx.example.com")
        await look(replica)
        second = await only(store)
        assert second.id != first.id
        (order,) = await store.list_certificate_orders()
        assert (order.asked_at, order.attempts) == (None, 0)
        assert len(await store.list_acme_accounts()) == 1

    async def test_it_is_renewed_thirty_days_before_its_end(self, make: Make, store: Store) -> None:
        """REQ-INFRA-TLS-010: of 90 days; and by what the CA suggests, if that is earlier."""
        clock = ManualClock(datetime.now(UTC))
        replica = make("mx.example.com", clock=clock)
        await look(replica)
        first = await only(store)
        await store.set_renewal_time(first.id, None, first.not_after)  # as of a CA that suggests nothing
        clock.advance(((first.not_after - clock.now()) - timedelta(days=30, hours=1)).total_seconds())
        await look(replica)
        assert (await only(store)).id == first.id
        clock.advance(timedelta(hours=2).total_seconds())
        await look(replica)
        assert (await only(store)).id != first.id

    async def test_a_profile(self, make: Make, store: Store) -> None:
        await look(make("mx.example.com", acme_profile="shortlived"))
        found = await only(store)
        assert found.not_after - found.not_before < timedelta(days=7)

    async def test_other_names_are_another_certificate(self, make: Make, store: Store) -> None:
        await look(make("mx=mx.example.com"))
        await look(make("mx=mx.example.com,two.example.com"))
        is_good(await only(store, "mx"), ["mx.example.com", "two.example.com"])

    async def test_a_name_that_is_taken_out_serves_to_its_end(self, make: Make, store: Store) -> None:
        await look(make("mx=mx.example.com two.example.com"))
        await look(make("mx=mx.example.com"))
        assert [o.name for o in await store.list_certificate_orders()] == ["mx"]
        assert len(await store.list_fleet_certificates()) == 2

    async def test_revoked(self, make: Make, store: Store, pebble: Pebble) -> None:
        replica = make("mx.example.com")
        await look(replica)
        first = await only(store)
        await replica.issuer.revoke(first, 4)
        assert await store.list_fleet_certificates() == []
        assert pebble.status_of(first.chain) == "Revoked"
        for other in ("", "https://other.example/dir"):
            with pytest.raises(ConfigurationError, match="revoke it where it is from"):
                await replica.issuer.revoke(dataclasses.replace(first, directory=other), 4)
        await look(replica)
        assert (await only(store)).id != first.id, "it is still wanted, so there is another one"


class TestFaults:
    async def test_nobody_answers_the_challenge(
        self, make: Make, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        """REQ-INFRA-TLS-006: told at once, tried later, told once."""
        clock = ManualClock(datetime.now(UTC))
        replica = make("mx.example.com", clock=clock)
        with caplog.at_level(logging.ERROR):
            await look(replica)
        (order,) = await store.list_certificate_orders()
        assert order.attempts == 1
        assert order.next_try_at is not None
        assert timedelta(seconds=60) <= order.next_try_at - clock.now() <= timedelta(seconds=75)
        assert "mx.example.com" in (order.last_error or "")
        await look(replica)
        assert (await store.list_certificate_orders())[0].attempts == 1, "it waits"
        clock.advance(80)
        await look(replica)
        (order,) = await store.list_certificate_orders()
        assert order.attempts == 2
        assert order.next_try_at is not None
        assert order.next_try_at - clock.now() >= timedelta(seconds=120)
        assert len(replica.alerter.alerts) == 1
        clock.advance(timedelta(days=1, hours=1).total_seconds())
        await look(replica)
        assert len(replica.alerter.alerts) == 2, "nothing serves: told again each day"
        assert [r.action for r in caplog.records].count("certificate_alert") == 2

    async def test_a_ca_that_is_away_for_hours(self, make: Make, store: Store, pebble: Pebble) -> None:
        """REQ-INFRA-TLS-006: the old certificate stays, and a new one comes when the CA does."""
        clock = ManualClock(datetime.now(UTC))
        replica = make("mx.example.com", clock=clock)
        async with answering("127.0.0.1", pebble.http_port, store):
            await look(replica)
            first = await only(store)
            pebble.stop()
            await store.ask_for_certificate(first.name)
            for _ in range(8):
                await look(replica)
                assert await only(store) == first or (await only(store)).id == first.id
                clock.advance(1800)
            (order,) = await store.list_certificate_orders()
            assert 5 <= order.attempts <= 8, "tried again, and ever less often"
            assert len(replica.alerter.alerts) == 1
            pebble.start()  # It has forgotten the account meanwhile, as a CA that lost its data would.
            clock.advance(6 * 3600)
            for account in await store.list_acme_accounts():
                assert account.kid
            fresh = make("mx.example.com", clock=clock)
            await look(fresh)
            (order,) = await store.list_certificate_orders()
            assert order.attempts == 0, order.last_error
            assert (await only(store)).id != first.id

    async def test_a_clock_that_is_wrong(self, make: Make, store: Store, pebble: Pebble) -> None:
        """What is not valid yet by our clock is not made current."""
        replica = make("mx.example.com", clock=ManualClock(datetime(2001, 1, 1, tzinfo=UTC)))
        async with answering("127.0.0.1", pebble.http_port, store):
            await look(replica)
        assert await store.list_fleet_certificates() == []
        (order,) = await store.list_certificate_orders()
        assert "clock" in (order.last_error or "")

    async def test_the_dns_refuses(self, make: Make, store: Store, pebble: Pebble) -> None:
        await look(make("*.example.com", BrokenDns(pebble)))
        (order,) = await store.list_certificate_orders()
        assert order.last_error == "updating the zone: REFUSED"
        await store.ask_for_certificate(order.name)
        await look(make("*.example.com", None))
        (order,) = await store.list_certificate_orders()
        assert "ACME_DNS" in (order.last_error or "")


class TestDns:
    async def test_a_wildcard_beside_its_domain(self, make: Make, store: Store, pebble: Pebble) -> None:
        """REQ-INFRA-TLS-004: DNS-01; both are proved by two records of one name."""
        dns = PebbleDns(pebble)
        await look(make("wild=example.com,*.example.com", dns))
        is_good(await only(store, "wild"), ["example.com", "*.example.com"])
        assert dns.seen == ["_acme-challenge.example.com"]

    async def test_by_dynamic_updates(self, make: Make, store: Store, pebble: Pebble, tmp_path: Path) -> None:
        """REQ-INFRA-TLS-004: signed updates (RFC 2136, RFC 8945) of the name server that the CA asks."""
        server = NameServer(tsig.Key("acme.", SECRET, "hmac-sha256"))
        (tmp_path / "tsig").write_text(f"acme. hmac-sha256 {SECRET}\n")
        replica = make(
            "wild=example.com,*.example.com",
            acme_dns="rfc2136",
            acme_rfc2136_server=f"127.0.0.1:{server.port}",
            acme_rfc2136_zone="example.com",
            acme_rfc2136_key_file=tmp_path / "tsig",
        )
        async with shown_to(pebble, lambda: server.records) as shown:
            await look(replica)
        server.close()
        is_good(await only(store, "wild"), ["example.com", "*.example.com"])
        assert shown.asked["_acme-challenge.example.com", "TXT"] >= 1, "the CA has looked"
        assert server.records == {}, "what was proved is taken away"

    async def test_by_route_53(
        self, make: Make, store: Store, pebble: Pebble, moto: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """REQ-INFRA-TLS-004: moto's hosted zone, shown to the CA by a name server, since moto is none."""
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("route53", region_name="us-east-1")
        zone = client.create_hosted_zone(Name="example.net.", CallerReference="dns-01")["HostedZone"]["Id"]
        async with shown_to(pebble, lambda: texts_of_route53(client, zone)) as shown:
            await look(make("wild=example.net,*.example.net", acme_dns="route53"))
        is_good(await only(store, "wild"), ["example.net", "*.example.net"])
        assert shown.asked["_acme-challenge.example.net", "TXT"] >= 1, "the CA has looked"
        assert texts_of_route53(client, zone) == {}, "what was proved is taken away"


class TestFleet:
    async def test_one_of_two_replicas_issues(self, make: Make, store: Store, pebble: Pebble) -> None:
        """The lock decides; the other takes over."""
        one, two = make("mx.example.com"), make("mx.example.com")
        async with answering("127.0.0.1", pebble.http_port, store):
            tasks = [asyncio.create_task(each.keeper.run()) for each in (one, two)]
            try:
                async with asyncio.timeout(60):
                    while not await store.list_fleet_certificates():
                        await asyncio.sleep(0.1)
                await asyncio.sleep(3.0)  # Whoever issues too has begun at the same time.
            finally:
                for task in tasks:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
        assert len(await store.list_fleet_certificates(current_only=False)) == 1

    async def test_nothing_secret_is_written(
        self, make: Make, store: Store, pebble: Pebble, caplog: pytest.LogCaptureFixture
    ) -> None:
        """REQ-INFRA-TLS-012: not in logs of any level, not in what objects show."""
        replica = make("mx.example.com")
        with caplog.at_level(logging.DEBUG):
            async with answering("127.0.0.1", pebble.http_port, store):
                await look(replica)
        certificate = await only(store)
        key = KEYS.open(certificate.sealed, certificate.context).decode()
        (account,) = await store.list_acme_accounts()
        secrets = [key, KEYS.open(account.sealed, account.context).decode()]
        text = caplog.text + repr(certificate) + repr(account) + repr(replica.issuer.__dict__)
        for secret in secrets:
            for line in secret.splitlines()[1:3]:  # what follows is the public half
                assert line not in text
        assert "PRIVATE KEY" not in text
