"""What a hostile next hop says ends up in Postgres and in the log as one line of printable text."""

from __future__ import annotations

import asyncio

import pytest
from fix_postgres import PostgresServer
from fix_valkey import ValkeyServer
from fix_worker import eventually
from mail import core_envelope
from scripted_server import ScriptedServer

from smtp_proxy.config import Settings
from smtp_proxy.store import Store
from smtp_proxy.telemetry.lifecycle import Lifecycle
from smtp_proxy.worker import worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

SAID = b'5.1.1 \x1b[2J\x00gone\x07 \xff\xfe \xe2\x80\xaeturned\xe2\x80\xa8{"action":"delivered"}\x0b\r end'
RECORDED = '[2J gone \ufffd\ufffd turned {"action":"delivered"} end'


async def test_it_is_recorded_clean(
    db_settings: Settings, postgres: PostgresServer, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = ScriptedServer(answers={"RCPT": b"550 " + SAID + b"\r\n"})
    async with server.running():
        settings = db_settings.model_copy(
            update={
                "redis_url": type(db_settings.redis_url)(valkey.url),
                "smarthost_port": server.port,
                "smarthost_tls": "none",
                "sweep_interval_seconds": 0.2,
                "shutdown_timeout_seconds": 5.0,
            }
        )
        store = await Store.connect(settings, purpose="test")
        row = core_envelope()
        # From the null reverse-path, so that nobody is sent a report of it.
        await store.accept([(*row[:3], "", *row[4:])], sweep_after_seconds=0.0)
        await store.close()
        lifecycle = Lifecycle(settings.shutdown_timeout_seconds)

        async def attempts() -> list[str]:
            rows = await postgres.sql("SELECT reply_text FROM attempts", database=settings.db_name)
            return [row["reply_text"] for row in rows]

        async def recorded() -> bool:
            return bool(await attempts())

        with caplog.at_level("INFO"):
            serving = asyncio.create_task(worker.serve(settings, lifecycle))
            try:
                await eventually(recorded, 30)
            finally:
                lifecycle.stop("the test is over")
                await serving
    assert await attempts() == [RECORDED]
    said = [record.getMessage() for record in caplog.records if vars(record).get("action") == "not_delivered"]
    assert said == [f"refused: 550 {RECORDED}"]
