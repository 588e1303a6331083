"""The worker with a routes file: a tenant's mail its own way, domains theirs, and a changed file while it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from dns_server import DnsServer
from fix_valkey import ValkeyServer
from mail import core_envelope
from scripted_server import ScriptedServer

from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.change import Reroute
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.store import Store
from smtp_proxy.stream.publisher import Publisher
from smtp_proxy.telemetry.lifecycle import Lifecycle
from smtp_proxy.worker import worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]


@pytest.fixture
def settings(db_settings: Settings, valkey: ValkeyServer, tmp_path: Path) -> Settings:
    return db_settings.model_copy(
        update={
            "redis_url": type(db_settings.redis_url)(valkey.url),
            "routes_file": tmp_path / "routes.toml",
            "smarthost_tls": "none",
            "worker_lease_seconds": 3.0,
            "sweep_interval_seconds": 0.2,
            "shutdown_timeout_seconds": 5.0,
        }
    )


def written(settings: Settings, text: str) -> None:
    assert settings.routes_file is not None
    settings.routes_file.write_text(text)


@contextlib.asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[tuple[Store, Publisher]]:
    store = await Store.connect(settings, purpose="test")
    publisher = Publisher(settings)
    lifecycle = Lifecycle(settings.shutdown_timeout_seconds)
    serving = asyncio.create_task(worker.serve(settings, lifecycle))
    try:
        yield store, publisher
    finally:
        lifecycle.stop("the test is over")
        await serving
        await publisher.close()
        await store.close()


async def send(store: Store, publisher: Publisher, *recipients: str, tenant: UUID | None = None) -> UUID:
    row = list(core_envelope(*recipients))
    if tenant is not None:
        row[1] = tenant.bytes
    await store.accept([tuple(row)], sweep_after_seconds=15.0)  # type: ignore[list-item]
    await publisher.publish([UUID(bytes=row[0])])  # type: ignore[arg-type]
    return UUID(bytes=row[0])  # type: ignore[arg-type]


async def arrives(sink: ScriptedServer, count: int) -> None:
    async with asyncio.timeout(15):
        while len(sink.received) < count:
            await asyncio.sleep(0.02)


async def test_by_tenant_by_domain_and_by_a_changed_file(settings: Settings) -> None:
    async with (
        ScriptedServer().running() as usual,
        ScriptedServer().running() as own,
        ScriptedServer().running() as new,
    ):
        settings = settings.model_copy(update={"smarthost_port": usual.port})
        text = '[routes.own]\nhosts = ["127.0.0.1:{}"]\ntls = "none"\n[[rules]]\ntenant = "acme"\nroutes = ["own"]\n'
        written(settings, text.format(own.port))
        async with working(settings) as (store, publisher):
            acme = await store.create_tenant("acme")
            await send(store, publisher, "a@rcpt.example")
            await send(store, publisher, "a@rcpt.example", tenant=acme.id)
            await asyncio.gather(arrives(usual, 1), arrives(own, 1))
            written(settings, text.format(new.port))
            await asyncio.sleep(2.5)  # WATCH_SECONDS and a little
            await send(store, publisher, "a@rcpt.example", tenant=acme.id)
            await arrives(new, 1)
    assert (len(usual.received), len(own.received), len(new.received)) == (1, 1, 1)


async def test_deferred_mail_is_rerouted_and_arrives_at_once(settings: Settings) -> None:
    async with ScriptedServer().running() as full, ScriptedServer().running() as spare:
        full.answers["DOT"] = b"452 4.3.1 full\r\n"
        settings = settings.model_copy(update={"smarthost_port": full.port, "retry_initial_seconds": 3600.0})
        written(settings, f'[routes.spare]\nhosts = ["127.0.0.1:{spare.port}"]\ntls = "none"\n')
        async with working(settings) as (store, publisher):
            message_id = await send(store, publisher, "a@rcpt.example", "b@rcpt.example")
            async with asyncio.timeout(15):
                while not (await store.message(message_id)).deliveries[1].attempt_count:
                    await asyncio.sleep(0.05)
            assert await store.reroute(Reroute("spare"), [message_id]) == [message_id]
            await arrives(spare, 1)
            async with asyncio.timeout(15):
                while (await store.message(message_id)).summary.states != (DeliveryState.DELIVERED,) * 2:
                    await asyncio.sleep(0.05)
            remotes = [attempt.remote for attempt in (await store.message(message_id)).deliveries[0].attempts]
    assert remotes == [f"127.0.0.1:{full.port}", f"127.0.0.1:{spare.port}"]


async def test_direct_mail_and_a_domain_that_takes_none(settings: Settings, dns: DnsServer) -> None:
    dns.add("rcpt.example", "MX", "10 mx.rcpt.example.")
    dns.add("mx.rcpt.example", "A", "127.0.0.1")
    dns.add("null.example", "MX", "0 .")
    async with ScriptedServer().running() as sink:
        written(
            settings,
            f'default = "direct"\n[routes.direct]\nkind = "mx"\nport = {sink.port}\nprivate_addresses = true\n',
        )
        settings = settings.model_copy(update={"dns_servers": f"127.0.0.1:{dns.port}"})
        async with working(settings) as (store, publisher):
            message_id = await send(store, publisher, "a@rcpt.example", "b@null.example", "c@rcpt.example")
            async with asyncio.timeout(15):
                while {d.state for d in (await store.message(message_id)).deliveries} - {
                    DeliveryState.DELIVERED,
                    DeliveryState.REFUSED,
                }:
                    await asyncio.sleep(0.05)
            deliveries = (await store.message(message_id)).deliveries
    assert sink.received[0].recipients == [b"TO:<a@rcpt.example>", b"TO:<c@rcpt.example>"]
    assert [d.state for d in deliveries] == [DeliveryState.DELIVERED, DeliveryState.REFUSED, DeliveryState.DELIVERED]
    (attempt,) = deliveries[1].attempts
    assert (attempt.outcome, attempt.enhanced_code) == (Outcome.REFUSED, "5.1.10")
    assert deliveries[0].attempts[0].remote == f"mx.rcpt.example:{sink.port}"


async def test_a_wrong_file_is_said_at_start(settings: Settings) -> None:
    written(settings, "default = 'nowhere'")
    with pytest.raises(ConfigurationError, match="default names the route 'nowhere'"):
        await worker.serve(settings, Lifecycle(1.0))


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer().running() as server:
        yield server
