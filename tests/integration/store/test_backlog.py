"""With much deferred mail in the tables, what moves mail reads the rows that it is about, and no others."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest
from fix_postgres import PostgresServer
from store_suite import SWEEP_AFTER, core_envelope, ids_of

from smtp_proxy.config import Settings
from smtp_proxy.store import Store
from smtp_proxy.store.ids import new_id
from smtp_proxy.store.pool import open_connection
from smtp_proxy.store.queries import QUERIES

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

DEFERRED = 40_000
WORKER = UUID(int=7)
STATEMENTS = ("claim", "sending", "renew", "release", "sweep", "depth", "hold_named", "cancel_named")
DEFER = (
    "INSERT INTO deliveries (envelope_id, recipient_number, recipient, attempt_count, next_attempt_at, sweep_at) "
    "SELECT id, 0, 'a@x.example', 1, now() + interval '1 hour', now() + interval '1 hour' FROM unnest($1::uuid[]) AS id"
)


def values_of(name: str, ids: list[UUID]) -> str:
    some, first = "ARRAY[" + ",".join(f"'{i}'" for i in ids) + "]::uuid[]", f"'{ids[0]}'::uuid"
    low, high = f"'{min(ids)}'", f"'{max(ids)}'"
    return {
        "claim": f"{some}, {low}, {high}, '{WORKER}', '30 seconds'",
        "sending": f"ARRAY[{first}], ARRAY[0], ARRAY[1], ARRAY['{WORKER}'::uuid], ARRAY[now()], ARRAY['mx:25'], "
        f"{low}, {high}, ARRAY['{WORKER}'::uuid]",
        "renew": f"{some}, {low}, {high}, '{WORKER}', '30 seconds'",
        "release": f"'{WORKER}', '30 seconds'",
        "sweep": "1000, '15 seconds', 0",
        "depth": "'15 seconds', 1000",
        "hold_named": f"{some}, {low}, {high}",
        "cancel_named": f"{some}, {low}, {high}",
    }[name]


@pytest.mark.parametrize(
    "name", ["claim", "sending", "renew", "release", "sweep", "depth", "hold_named", "cancel_named"]
)
@pytest.mark.parametrize("plan_mode", ["force_generic_plan", "force_custom_plan"])
async def test_deferred_mail_is_not_read(
    store: Store, postgres: PostgresServer, db_settings: Settings, name: str, plan_mode: str
) -> None:
    now = datetime.now(UTC)
    await postgres.sql(DEFER, [new_id(now) for _ in range(DEFERRED)], database=db_settings.db_name)
    batch = [core_envelope() for _ in range(5)]
    await store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
    connection = await open_connection(db_settings, "test")
    await connection.execute("ANALYZE")
    read = await rows_read(connection, plan_mode, name, values_of(name, ids_of(batch)))
    await connection.close()
    assert read <= len(batch) * 2, f"{name} looked at {read} rows"


@pytest.mark.parametrize("plan_mode", ["force_generic_plan", "force_custom_plan"])
@pytest.mark.parametrize(("many", "few"), [(1, 0), (1, 7), (0, 1), (7, 1)])
async def test_what_is_due_in_one_lane_is_not_read_for_the_other(
    store: Store, postgres: PostgresServer, db_settings: Settings, plan_mode: str, many: int, few: int
) -> None:
    """7 is a lane of a later release, swept with 0."""
    due = DEFER.replace("sweep_at) ", "sweep_at, lane) ").replace("+ interval '1 hour'", "- interval '1 hour'")
    due = due.replace(" FROM unnest", f", {many} FROM unnest")
    assert f"- interval '1 hour', {many} FROM" in due
    now = datetime.now(UTC)
    await postgres.sql(due, [new_id(now) for _ in range(DEFERRED)], database=db_settings.db_name)
    await store.accept([core_envelope(lane=few) for _ in range(5)], sweep_after_seconds=-1.0)
    connection = await open_connection(db_settings, "test")
    await connection.execute("ANALYZE")
    read = await rows_read(connection, plan_mode, "sweep", f"100, '15 seconds', {int(few == 1)}")
    await connection.close()
    assert 5 <= read <= 10, f"the sweep looked at {read} rows"


@pytest.mark.parametrize("plan_mode", ["force_generic_plan", "force_custom_plan"])
async def test_a_backlog_that_is_due_is_not_read_whole(
    store: Store, postgres: PostgresServer, db_settings: Settings, plan_mode: str
) -> None:
    """After an outage: what is swept at a time costs the same, however much is due."""
    due = DEFER.replace("+ interval '1 hour'", "- interval '1 hour'")
    now = datetime.now(UTC)
    await postgres.sql(due, [new_id(now) for _ in range(DEFERRED)], database=db_settings.db_name)
    connection = await open_connection(db_settings, "test")
    await connection.execute("ANALYZE")
    read = await rows_read(connection, plan_mode, "sweep", "100, '15 seconds', 0")
    await connection.close()
    assert 100 <= read <= 200, f"the sweep of 100 looked at {read} rows"


@pytest.mark.parametrize("plan_mode", ["force_generic_plan", "force_custom_plan"])
async def test_leases_are_renewed_without_a_look_at_what_is_due(
    store: Store, postgres: PostgresServer, db_settings: Settings, plan_mode: str
) -> None:
    """Once all that was due was read, every third of a lease, by every worker."""
    due = DEFER.replace("+ interval '1 hour'", "- interval '1 hour'")
    now = datetime.now(UTC)
    await postgres.sql(due, [new_id(now) for _ in range(DEFERRED)], database=db_settings.db_name)
    batch = [core_envelope() for _ in range(5)]
    await store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
    assert len(await store.claim(ids_of(batch), WORKER, 30.0)) == len(batch)
    connection = await open_connection(db_settings, "test")
    await connection.execute("ANALYZE")
    read = await rows_read(connection, plan_mode, "renew", values_of("renew", ids_of(batch)))
    await connection.close()
    assert len(batch) <= read <= len(batch) * 2, f"renewing looked at {read} rows"


async def rows_read(connection: asyncpg.Connection, plan_mode: str, name: str, values: str) -> int:
    """The most rows that a node of the plan had to do with, those that it threw away among them.

    Not those that a join threw away, which others have read.
    """
    await connection.execute(f"SET plan_cache_mode = {plan_mode}")
    await connection.execute(f"PREPARE wanted AS {QUERIES[name]}")
    rows = await connection.fetch(f"EXPLAIN (ANALYZE, COSTS off, TIMING off) EXECUTE wanted ({values})")
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan on deliveries_p" not in plan, plan
    found = re.findall(r"actual rows=([0-9]+)", plan) + re.findall(
        r"Rows Removed by (?!Join)\w+(?: \w+)?: ([0-9]+)", plan
    )
    return max(int(number) for number in found)
