"""Webhooks over a real HTTPS server and a real Postgres, with endpoints that fail in every way."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiohttp import web
from certificates import Authority
from store_suite import attempt_for, core_envelope

from smtp_proxy.clock import SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.sealing import new_key_line, read_keys
from smtp_proxy.store import Store
from smtp_proxy.telemetry.tasks import end
from smtp_proxy.worker.webhook_post import Poster
from smtp_proxy.worker.webhooks import Webhooks

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]


@dataclass
class Endpoint:
    """A real HTTPS server. `answer`: what a request gets."""

    url: str = ""
    answer: Callable[[dict[str, Any]], Awaitable[web.Response]] | None = None
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.requests]

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append((dict(request.headers), body))
        return await self.answer(json.loads(body)) if self.answer else web.Response(status=204)


@dataclass
class House:
    settings: Settings
    store: Store
    tenant: str = "acme"

    async def command(self, *arguments: str, code: int = 0) -> str:
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
        ran = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "smtp_proxy", *arguments],
            env={**environment, **self.settings.environment()},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == code, ran.stderr
        return ran.stdout + ran.stderr

    async def add(self, url: str, *options: str) -> tuple[str, bytes]:
        """Id and secret."""
        first, second = (await self.command("webhooks", "add", url, "--tenant", self.tenant, *options)).splitlines()
        return first.split()[2], second.removeprefix("secret: ").encode()

    @contextlib.asynccontextmanager
    async def aged(self) -> AsyncIterator[None]:
        """What is told of meanwhile occurred ten days ago."""
        body = "BEGIN NEW.occurred_at := now() - interval '10 days'; RETURN NEW; END"
        await self.sql(f"CREATE FUNCTION aged() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
        await self.sql("CREATE TRIGGER aged BEFORE INSERT ON webhook_events FOR EACH ROW EXECUTE FUNCTION aged()")
        yield
        await self.sql("DROP TRIGGER aged ON webhook_events; DROP FUNCTION aged()")

    async def sql(self, statement: str) -> None:
        where = self.settings
        connection = await asyncpg.connect(
            host=where.db_host, port=where.db_port, user=where.db_user, database=where.db_name, ssl=False
        )
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def mail(self, *outcomes: Outcome) -> str:
        """One message with a recipient for each; returns its id."""
        tenant = (await self.store.tenant_by_name(self.tenant)).id
        row = core_envelope([f"{n}@rcpt.example" for n in range(len(outcomes))], tenant=tenant.bytes)
        await self.store.accept([row], sweep_after_seconds=60.0)
        worker = uuid4()
        (job,) = await self.store.claim([UUID(bytes=row[0])], worker, 60.0)
        attempts = [
            attempt_for(job, worker, outcome, recipient=n, retry_in=60.0 if outcome is Outcome.DEFERRED else None)
            for n, outcome in enumerate(outcomes)
        ]
        assert await self.store.record(attempts) == len(outcomes)
        return str(job.envelope.id)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def endpoints(authority: Authority) -> AsyncIterator[Callable[[], Awaitable[Endpoint]]]:
    runners: list[web.AppRunner] = []

    async def make() -> Endpoint:
        endpoint = Endpoint()
        application = web.Application()
        application.router.add_post("/hook", endpoint.handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=authority.server("localhost"))
        await site.start()
        endpoint.url = f"https://localhost:{runner.addresses[0][1]}/hook"
        return endpoint

    yield make
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def house(db_settings: Settings, authority: Authority, tmp_path: Path) -> AsyncIterator[House]:
    key_file = tmp_path / "secret.key"
    key_file.write_text(new_key_line())
    changes = {
        "secret_key_file": key_file,
        "webhook_allowed_networks": "127.0.0.0/8,::1/128",
        "webhook_ca_file": authority.ca_file,
        "webhook_interval_seconds": 0.05,
        "webhook_timeout_seconds": 1.0,
    }
    settings = db_settings.model_copy(update=changes)
    store = await Store.connect(settings, purpose="test")
    await store.create_tenant("acme")
    yield House(settings, store)
    await store.close()


@pytest.fixture
async def telling(house: House) -> AsyncIterator[None]:
    """The dispatcher, as the worker runs it."""
    poster = Poster(house.settings)
    keys = read_keys(house.settings.secret_key_file)
    task = asyncio.create_task(Webhooks(house.settings, house.store, poster, keys, SystemClock()).run())
    yield
    await end([task])
    await poster.close()


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.02)


Make = Callable[[], Awaitable[Endpoint]]


async def test_what_became_of_mail_is_posted_signed_and_in_order(house: House, endpoints: Make, telling: None) -> None:
    endpoint = await endpoints()
    webhook, secret = await house.add(endpoint.url)
    assert "taken" in await house.command("webhooks", "test", webhook)
    assert endpoint.told[0]["event"] == "test"
    ids = [await house.mail(Outcome.DELIVERED, Outcome.REFUSED, Outcome.DEFERRED) for _ in range(5)]
    await until(lambda: len(endpoint.requests) == 16)
    for headers, body in endpoint.requests:
        timestamp, given = (part.partition("=")[2] for part in headers["Smtp-Proxy-Signature"].split(","))
        assert abs(int(timestamp) - time.time()) < 30
        expected = hmac.new(secret, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(given, expected)
        assert headers["Smtp-Proxy-Event-Id"] == json.loads(body)["id"]
    for envelope_id in ids:
        events = [e["event"] for e in endpoint.told if e.get("message", {}).get("id") == envelope_id]
        assert events == ["delivered", "bounced", "deferred"]
    assert secret.decode() not in await house.command("webhooks", "list", "--json")


async def test_only_what_was_asked_for(house: House, endpoints: Make, telling: None) -> None:
    endpoint = await endpoints()
    await house.add(endpoint.url, "--event", "bounced")
    await house.mail(Outcome.DELIVERED, Outcome.REFUSED)
    await until(lambda: bool(endpoint.requests))
    assert [e["event"] for e in endpoint.told] == ["bounced"]


async def test_a_dead_and_a_slow_endpoint_keep_nobody_waiting(house: House, endpoints: Make, telling: None) -> None:
    good, slow = await endpoints(), await endpoints()
    gone = "https://localhost:1/hook"

    async def stall(_: dict[str, Any]) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    slow.answer = stall
    for url in (slow.url, gone, good.url):
        await house.add(url)
    began = time.monotonic()
    for _ in range(40):
        await house.mail(Outcome.DELIVERED)
    recorded = time.monotonic() - began
    await until(lambda: len(good.requests) == 40)
    assert recorded < 10
    await until(lambda: len(slow.requests) >= 8)
    await asyncio.sleep(1.5)
    assert len(slow.requests) <= 40
    listed = {w["url"]: w for w in json.loads(await house.command("webhooks", "list", "--json"))}
    assert listed[good.url]["failing_since"] is None
    assert listed[gone]["failing_since"] is not None
    assert listed[gone]["waiting"] == 40
    assert listed[slow.url]["last_error"] == "no answer in time"


async def test_what_fails_is_tried_again_in_order(
    house: House, endpoints: Make, telling: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smtp_proxy.worker.webhooks._FIRST_SECONDS", 0.2)
    endpoint = await endpoints()
    failing = {"delivered": 2}

    async def answer(event: dict[str, Any]) -> web.Response:
        if failing.get(event["event"], 0) > 0:
            failing[event["event"]] -= 1
            return web.Response(status=503, text="later,\nplease")
        return web.Response(status=200)

    endpoint.answer = answer
    await house.add(endpoint.url)
    await house.mail(Outcome.DELIVERED, Outcome.REFUSED)
    await until(lambda: len(endpoint.requests) == 4)
    assert [e["event"] for e in endpoint.told] == ["delivered", "delivered", "delivered", "bounced"]
    assert len({headers["Smtp-Proxy-Event-Id"] for headers, _ in endpoint.requests}) == 2


async def test_one_that_is_enabled_while_it_is_called_stays_enabled(
    house: House, endpoints: Make, telling: None, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = await endpoints()
    webhook = UUID((await house.add(endpoint.url))[0])
    long_ago = datetime.now(UTC) - timedelta(days=365)
    await house.store.judge_webhook(webhook, failing_since=long_ago, failures=9)

    async def enabled_meanwhile(_: dict[str, Any]) -> web.Response:
        await house.store.judge_webhook(webhook)
        return web.Response(status=500)

    endpoint.answer = enabled_meanwhile
    await house.mail(Outcome.DELIVERED)
    await until(lambda: len(endpoint.requests) == 1)
    endpoint.answer = None
    await house.mail(Outcome.DELIVERED)
    await until(lambda: len(endpoint.requests) >= 2, 4.0)  # Less than the least pause.
    (kept,) = await house.store.list_webhooks()
    assert (kept.disabled_at, kept.paused_until, kept.failures) == (None, None, 0)
    assert "is switched off" not in caplog.text


async def test_given_up_switched_off_and_replayed(
    house: House, endpoints: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("smtp_proxy.worker.webhooks._FIRST_SECONDS", 0.05)
    settings = house.settings.model_copy(update={"webhook_give_up_seconds": 0.1, "webhook_disable_seconds": 0.5})
    endpoint = await endpoints()

    async def refuse(_: dict[str, Any]) -> web.Response:
        return web.Response(status=500, text="broken")

    endpoint.answer = refuse
    webhook, _ = await house.add(endpoint.url)
    poster, keys = Poster(settings), read_keys(settings.secret_key_file)
    task = asyncio.create_task(Webhooks(settings, house.store, poster, keys, SystemClock()).run())
    try:
        while "is switched off" not in caplog.text:
            await house.mail(Outcome.DELIVERED)
            await asyncio.sleep(0.1)
        assert "localhost has taken nothing" in caplog.text
        assert "/hook" not in caplog.text, "the rest of a URL may hold a secret"
        (listed,) = json.loads(await house.command("webhooks", "list", "--json"))
        assert listed["disabled_at"]
        assert listed["last_error"] == "500 broken"
        assert listed["given_up"] > 0
        endpoint.answer, known = None, len(endpoint.requests)
        await house.command("webhooks", "enable", webhook)
        assert f"{listed['given_up']} events" in await house.command("webhooks", "replay", webhook)
        await until(lambda: len(endpoint.requests) - known >= listed["given_up"])
    finally:
        await end([task])
        await poster.close()


async def test_what_is_old_has_its_whole_time_anew_by_a_replay_and_by_enable(
    house: House, endpoints: Make, telling: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smtp_proxy.worker.webhooks._FIRST_SECONDS", 0.2)
    endpoint = await endpoints()
    webhook, _ = await house.add(endpoint.url)

    async def refuse(_: dict[str, Any]) -> web.Response:
        return web.Response(status=500)

    async def first_time_refused(_: dict[str, Any]) -> web.Response:
        endpoint.answer = None
        return web.Response(status=503)

    async def given_up(count: int) -> bool:
        return (await house.store.event_counts([UUID(webhook)])).get(UUID(webhook)) == (0, count)

    endpoint.answer = refuse
    async with house.aged():
        await house.mail(Outcome.DELIVERED)
    async with asyncio.timeout(10):
        while not await given_up(1):
            await asyncio.sleep(0.05)
    endpoint.answer = first_time_refused
    await house.command("webhooks", "enable", webhook)
    assert "1 events" in await house.command("webhooks", "replay", webhook)
    await until(lambda: len(endpoint.requests) == 3)

    await house.store.judge_webhook(UUID(webhook), paused_until=datetime.now(UTC) + timedelta(days=1))
    async with house.aged():
        await house.mail(Outcome.DELIVERED)
    endpoint.answer = first_time_refused
    await house.command("webhooks", "enable", webhook)
    await until(lambda: len(endpoint.requests) == 5)
    assert [len({e["id"] for e in told}) for told in (endpoint.told[:3], endpoint.told[3:])] == [1, 1]


async def test_no_message_has_no_number(house: House, endpoints: Make) -> None:
    webhook, _ = await house.add((await endpoints()).url)
    said = await house.command("webhooks", "replay", webhook, "--message", str(UUID(int=0)), code=2)
    assert "is no id" in said


async def test_no_name_and_no_redirect_leads_inside(house: House, endpoints: Make) -> None:
    inside, outside = await endpoints(), await endpoints()

    async def elsewhere(_: dict[str, Any]) -> web.Response:
        return web.Response(status=307, headers={"Location": inside.url})

    outside.answer = elsewhere
    redirected, _ = await house.add(outside.url)
    assert "307" in await house.command("webhooks", "test", redirected, code=1)
    assert not inside.requests

    guarded = House(house.settings.model_copy(update={"webhook_allowed_networks": ""}), house.store)
    port = inside.url.partition("localhost:")[2]
    for host in ("localhost", "127.0.0.1", "[::1]", "127.1", "0x7f000001", "2130706433"):
        webhook, _ = await guarded.add(f"https://{host}:{port}")
        said = await guarded.command("webhooks", "test", webhook, code=1)
        # The library itself refuses addresses that are written in an unusual way.
        assert "WEBHOOK_ALLOWED_NETWORKS" in said or "canonical" in said, (host, said)
    assert not inside.requests


async def test_an_unknown_certificate_is_told_nothing(house: House, endpoints: Make) -> None:
    endpoint = await endpoints()
    stranger = House(house.settings.model_copy(update={"webhook_ca_file": None}), house.store)
    webhook, _ = await stranger.add(endpoint.url)
    assert "certificate" in (await stranger.command("webhooks", "test", webhook, code=1)).lower()
    assert not endpoint.requests
