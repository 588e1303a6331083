"""Leases are renewed beside whoever else holds their rows: nobody waits in a circle, nor believes what is not so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

import pytest
from fix_postgres import PostgresServer
from store_suite import LEASE, SWEEP_AFTER, core_envelope, ids_of

from smtp_proxy.clock import SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.model.lane import Lane
from smtp_proxy.store import Store
from smtp_proxy.store.pool import open_connection
from smtp_proxy.telemetry.tasks import end
from smtp_proxy.worker.lease import Claim, Leases

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

WORKER = UUID(int=7)
LOCK = "SELECT FROM deliveries WHERE envelope_id = $1 AND recipient_number = 0 FOR NO KEY UPDATE"


async def accepted(store: Store, count: int, recipients: int = 1) -> list[UUID]:
    batch = [core_envelope([f"{n}@x.example" for n in range(recipients)]) for _ in range(count)]
    await store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
    return ids_of(batch)


@asynccontextmanager
async def held_by_another(settings: Settings, envelope_id: UUID) -> AsyncIterator[None]:
    """A session holds the first delivery of this message, as the recording of its outcome does."""
    connection = await open_connection(settings, "holds a row")
    try:
        async with connection.transaction():
            await connection.execute(LOCK, envelope_id)
            yield
    finally:
        await connection.close()


async def until(postgres: PostgresServer, settings: Settings) -> dict[UUID, datetime]:
    """When the first lease on a delivery of each message ends."""
    rows = await postgres.sql(
        "SELECT envelope_id, min(sweep_at) AS until FROM deliveries GROUP BY envelope_id", database=settings.db_name
    )
    return {row["envelope_id"]: row["until"] for row in rows}


async def test_what_another_holds_is_not_waited_for_and_told_of(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    locked, *others = await accepted(store, 3, recipients=2)
    await store.claim([locked, *others], WORKER, LEASE)
    before = await until(postgres, db_settings)
    async with held_by_another(db_settings, locked), asyncio.timeout(5):
        renewed = await store.renew([locked, *others], WORKER, 3600.0)
    assert renewed == {locked: False, **dict.fromkeys(others, True)}
    after = await until(postgres, db_settings)
    assert after[locked] == before[locked]
    assert all((after[i] - before[i]).total_seconds() > 3000 for i in others)


@asynccontextmanager
async def claimed(store: Store, lease_seconds: float, *ids: UUID) -> AsyncIterator[tuple[Leases, dict[UUID, Claim]]]:
    async def give_back(_released: dict[UUID, Lane]) -> None:
        pass

    leases = Leases(store, lease_seconds, SystemClock(), give_back)
    claims = {claim.job.envelope.id: claim for claim in await leases.claim(ids)}
    assert set(claims) == set(ids)
    yield leases, claims
    await leases.release_all()


async def test_a_lease_that_could_not_be_renewed_is_not_believed_in(store: Store, db_settings: Settings) -> None:
    """Once it was, for a third or two of a lease after Postgres had given the message to others."""
    locked, other = await accepted(store, 2)
    async with claimed(store, 6.0, locked, other) as (leases, claims):
        await asyncio.sleep(3.1)
        async with held_by_another(db_settings, locked):
            await leases.tend()
        await asyncio.sleep(3.1)
        assert await store.sweep(10, SWEEP_AFTER) == [locked], "its lease has run out, that of the other one has not"
        assert not leases.holds(claims[locked])
        assert leases.holds(claims[other])


async def test_a_lease_that_could_not_be_renewed_is_tried_again_before_the_next_round(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    """Which comes after four seconds."""
    locked, other = await accepted(store, 2)
    async with claimed(store, 12.0, locked, other) as (leases, claims):
        before = await until(postgres, db_settings)
        async with held_by_another(db_settings, locked):
            renewing = asyncio.create_task(leases.run())
            async with asyncio.timeout(6):
                while (await until(postgres, db_settings))[other] == before[other]:
                    await asyncio.sleep(0.02)
            first = await until(postgres, db_settings)
            assert first[locked] == before[locked]
        async with asyncio.timeout(3):
            while (again := await until(postgres, db_settings))[locked] == before[locked]:
                await asyncio.sleep(0.02)
        await end([renewing])
        assert again[other] == first[other], "what was renewed is not renewed again for it"
        assert all(map(leases.holds, claims.values()))
