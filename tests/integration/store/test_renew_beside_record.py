"""Leases are renewed beside the recording of outcomes: in whichever order each goes, nobody waits in a circle."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from fix_postgres import PostgresServer
from store_suite import LEASE, SWEEP_AFTER, core_envelope, ids_of

from smtp_proxy.config import Settings
from smtp_proxy.store import Store
from smtp_proxy.store.pool import open_connection
from smtp_proxy.store.queries import QUERIES

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

WORKER = UUID(int=7)


async def test_what_is_being_recorded_is_not_waited_for(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    batch = [core_envelope() for _ in range(3)]
    await store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
    await store.claim(ids_of(batch), WORKER, LEASE)
    first, *others = sorted(ids_of(batch))
    recording = await open_connection(db_settings, "test")
    lease = timedelta(hours=1)
    async with recording.transaction():
        await recording.execute("UPDATE deliveries SET state = 2 WHERE envelope_id = $1", first)
        async with asyncio.timeout(5):
            connection = await open_connection(db_settings, "renews")
            await connection.execute(QUERIES["renew"], WORKER, lease)
            await connection.close()
    await recording.close()
    rows = await postgres.sql(
        "SELECT envelope_id FROM deliveries WHERE sweep_at > $1",
        datetime.now(UTC) + timedelta(minutes=50),
        database=db_settings.db_name,
    )
    assert sorted(row["envelope_id"] for row in rows) == others
