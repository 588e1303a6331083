"""Reports over a real Postgres, Valkey and a next hop that refuses: one for each message, through kill -9 too."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from fix_postgres import PostgresServer
from fix_valkey import ValkeyServer
from fix_worker import eventually
from mail import core_envelope
from scripted_server import Received, ScriptedServer

from smtp_proxy.config import Settings
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.store import Store
from smtp_proxy.telemetry.lifecycle import Lifecycle
from smtp_proxy.worker import worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

SENDER = b"<a@sender.example>"
_LOG_ID = re.compile(rb"^Final-Log-ID: ([0-9a-f-]+)\r$", re.MULTILINE)


def _rcpt(argument: bytes) -> bytes:
    return b"250 2.1.5 ok\r\n" if SENDER in argument else b"550 5.1.1 user unknown\r\n"


@pytest.fixture
async def refusing() -> AsyncIterator[ScriptedServer]:
    """Takes mail for the sender alone."""
    server = ScriptedServer(answers={"RCPT": _rcpt})
    async with server.running():
        yield server


@pytest.fixture
def settings(db_settings: Settings, valkey: ValkeyServer, refusing: ScriptedServer) -> Settings:
    return db_settings.model_copy(
        update={
            "redis_url": type(db_settings.redis_url)(valkey.url),
            "smarthost_port": refusing.port,
            "smarthost_tls": "none",
            "worker_lease_seconds": 3.0,
            "sweep_interval_seconds": 0.2,
            "sweep_after_seconds": 1.0,
            "shutdown_timeout_seconds": 5.0,
        }
    )


@contextlib.asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[None]:
    lifecycle = Lifecycle(settings.shutdown_timeout_seconds)
    serving = asyncio.create_task(worker.serve(settings, lifecycle))
    try:
        yield
    finally:
        lifecycle.stop("the test is over")
        await serving


async def accepted(settings: Settings, count: int) -> set[str]:
    store = await Store.connect(settings, purpose="test")
    rows = [core_envelope("gone@rcpt.example", "away@rcpt.example") for _ in range(count)]
    await store.accept(rows, sweep_after_seconds=0.0)
    await store.close()
    return {str(UUID(bytes=row[0])) for row in rows}


def reports(server: ScriptedServer) -> list[Received]:
    """What it took; what it refused has no recipient."""
    return [received for received in server.received if received.recipients]


def told_of(server: ScriptedServer) -> Counter[str]:
    """How many reports arrived on each message."""
    found: Counter[str] = Counter()
    for received in reports(server):
        message = email.message_from_bytes(received.data, policy=email.policy.default)
        assert message.get_content_type() == "multipart/report"
        _, *recipients = message.get_payload()[1].get_payload()
        assert [fields["Final-Recipient"] for fields in recipients] == [
            "rfc822; gone@rcpt.example",
            "rfc822; away@rcpt.example",
        ]
        found[recipients[0]["Final-Log-ID"]] += 1
    return found


async def test_who_sends_to_nobody_is_told(settings: Settings, refusing: ScriptedServer) -> None:
    ids = await accepted(settings, 3)
    async with working(settings):
        await eventually(lambda: _all_told(refusing, ids), 30)
    assert told_of(refusing) == Counter(ids)
    assert {received.reverse_path.split(b" ")[0] for received in reports(refusing)} == {b"FROM:<>"}
    assert {tuple(received.recipients) for received in reports(refusing)} == {(b"TO:" + SENDER,)}


async def test_each_message_has_one_report_though_workers_are_killed(
    settings: Settings, refusing: ScriptedServer, postgres: PostgresServer
) -> None:
    """Between an attempt and its report nothing can come: they are one transaction."""
    ids = await accepted(settings, 200)
    code = (
        "import asyncio; from smtp_proxy.config import Settings; from smtp_proxy.worker.worker import run; "
        "asyncio.run(run(Settings.load()))"
    )
    environment = {**os.environ, **settings.environment(), "PYTHONPATH": os.pathsep.join(sys.path)}
    for arrived in (20, 100):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, env=environment)
        while len(reports(refusing)) < arrived:
            await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
    async with working(settings):
        await eventually(lambda: _all_told(refusing, ids), 60)
    assert set(told_of(refusing)) == ids
    (row,) = await postgres.sql("SELECT count(*) FROM envelopes WHERE reverse_path = ''", database=settings.db_name)
    assert row["count"] == len(ids)


async def _all_told(server: ScriptedServer, ids: set[str]) -> bool:
    await asyncio.sleep(0.1)
    return {found[1].decode() for each in reports(server) if (found := _LOG_ID.search(each.data))} >= ids


async def test_a_message_whose_body_is_missing_is_tried_again_and_given_up_in_time(
    settings: Settings, refusing: ScriptedServer, postgres: PostgresServer
) -> None:
    """It was once put back every five minutes, without an attempt, for ever, and its sender heard nothing."""
    await accepted(settings, 1)
    await postgres.sql(
        "UPDATE envelopes SET content = NULL, received_at = now() - interval '9 days'", database=settings.db_name
    )
    soon = {"retry_initial_seconds": 0.2, "retry_give_up_seconds": 2.0, "retry_max_seconds": 0.5}
    statement = (
        "SELECT DISTINCT d.state, d.attempt_count > 1 AS again, last.reply_text FROM deliveries d "
        "JOIN envelopes e ON e.id = d.envelope_id AND e.reverse_path <> '' JOIN attempts last "
        "ON last.envelope_id = d.envelope_id AND last.attempt_number = d.attempt_count"
    )
    found: list[tuple[object, ...]] = []

    async def is_given_up() -> bool:
        found[:] = [tuple(row) for row in await postgres.sql(statement, database=settings.db_name)]
        return [row[0] for row in found] == [DeliveryState.REFUSED] and len(reports(refusing)) > 1

    async with working(settings.model_copy(update=soon)):
        await eventually(is_given_up, 30)
    ((_, again, text),) = found
    assert again, "nobody gives up mail by a single look, however old it is"
    assert "given up after 2 seconds; at last: its body is missing" in str(text)
    # Recipients that were due a moment apart share no attempt, and so no report.
    told = [b" ".join(report.data.split()) for report in reports(refusing)]
    failed = [text for text in told if b"Action: failed" in text]
    delayed = [text for text in told if b"Action: delayed" in text]
    assert len(failed) + len(delayed) == len(told)
    assert all(b"its body is missing in the database" in text for text in failed)
    for texts in (failed, delayed):
        heard = sorted(re.findall(rb"Final-Recipient: rfc822; *(\S+)", b" ".join(texts)))
        assert heard == [b"away@rcpt.example", b"gone@rcpt.example"], "each is told of once"
