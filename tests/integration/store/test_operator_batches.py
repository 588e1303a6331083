"""What an operator asks for comes in short statements, each of which reads about as much as it is told to."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from fix_postgres import PostgresServer
from store_suite import SWEEP_AFTER, TENANT, core_envelope, ids_of

from smtp_proxy.config import Settings
from smtp_proxy.store import Store, outcomes, retention
from smtp_proxy.store.ids import new_id
from smtp_proxy.store.pool import open_connection
from smtp_proxy.store.queries import QUERIES

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

LOW, HIGH = UUID(int=0), UUID(int=2**128 - 1)
HOOK = UUID(int=5)
OTHER = UUID(int=6)
TOLD = (
    "INSERT INTO webhook_events (envelope_id, webhook_id, recipient_number, attempt_number, event, occurred_at, "
    "payload, state, due_at) SELECT id, $2, 0, 1, 'delivered', now(), '{}', $3, now() FROM unnest($1::uuid[]) AS id"
)
STATEMENTS = {
    "given_up_until": f"'{HOOK}', '{LOW}', 5",
    "replay_given_up": f"'{HOOK}', '{LOW}', '{HIGH}', NULL",
    "event_counts": f"'{HOOK}', 1000",
    "remove_webhook_events": f"'{HOOK}', 1000",
    "events_until": f"'{LOW}', 9",
    "dead_until": f"'{HIGH}', 5",
    "dead_letters": f"NULL, NULL, '{HIGH}', '{LOW}'",
}


async def dead(store: Store, postgres: PostgresServer, settings: Settings, count: int, tenant: UUID) -> list[UUID]:
    batch = [core_envelope(tenant=tenant.bytes) for _ in range(count)]
    await store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
    await postgres.sql(
        "UPDATE deliveries SET state = 3 WHERE envelope_id = ANY ($1)", ids_of(batch), database=settings.db_name
    )
    return ids_of(batch)


@pytest.mark.parametrize("plan_mode", ["force_generic_plan", "force_custom_plan"])
@pytest.mark.parametrize("name", STATEMENTS)
async def test_what_others_have_is_not_read(
    store: Store, postgres: PostgresServer, db_settings: Settings, name: str, plan_mode: str
) -> None:
    """Beside 20,000 events that were told, of two webhooks, and mail that was delivered."""
    now, database = datetime.now(UTC), db_settings.db_name
    for webhook, state, count in ((HOOK, 1, 10_000), (OTHER, 1, 10_000), (HOOK, 2, 5), (HOOK, 0, 5), (OTHER, 2, 5)):
        await postgres.sql(TOLD, [new_id(now) for _ in range(count)], webhook, state, database=database)
    batch = [core_envelope() for _ in range(1000)]
    await store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
    await postgres.sql("UPDATE deliveries SET state = 2", database=database)
    await dead(store, postgres, db_settings, 5, TENANT)
    connection = await open_connection(db_settings, "test")
    await connection.execute("ANALYZE")
    await connection.execute(f"SET plan_cache_mode = {plan_mode}")
    await connection.execute(f"PREPARE wanted AS {QUERIES[name]}")
    rows = await connection.fetch(f"EXPLAIN (ANALYZE, COSTS off, TIMING off) EXECUTE wanted ({STATEMENTS[name]})")
    await connection.close()
    plan = "\n".join(row[0] for row in rows)
    read = re.findall(r"actual rows=([0-9]+)", plan) + re.findall(r"Rows Removed by \w+(?: \w+)?: ([0-9]+)", plan)
    assert max(map(int, read)) <= 10, plan


async def test_a_tenants_few_dead_letters_among_many_of_others(
    store: Store, postgres: PostgresServer, db_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "_PAGE_MAX", 10)
    acme = uuid4()
    ours = await dead(store, postgres, db_settings, 2, acme)
    await dead(store, postgres, db_settings, 45, uuid4())
    ours += await dead(store, postgres, db_settings, 1, acme)
    found = await store.dead_letters(tenant_id=acme, limit=50)
    assert [letter.envelope_id for letter in found] == sorted(ours, reverse=True)
    pages = [len(page) async for page in store.dead_letter_pages(tenant_id=acme, page=10)]
    assert (len(pages), sum(pages)) == (5, 3), "each page looks at ten, and at no message twice"


async def test_an_open_row_is_found_behind_many_batches(
    store: Store, postgres: PostgresServer, db_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State 9 is one of a later release, which no index of ours tells of."""
    monkeypatch.setattr(retention, "_LOOKED_AT", 2)
    old, database = datetime(2020, 1, 1, 12, tzinfo=UTC), db_settings.db_name
    await store.ensure_partitions(old, 0)
    row = (new_id(old).bytes, *core_envelope([f"{n}@x.example" for n in range(7)])[1:])
    await store.accept([row], sweep_after_seconds=SWEEP_AFTER)
    await postgres.sql(
        "UPDATE deliveries SET state = CASE recipient_number WHEN 6 THEN 9 ELSE 2 END", database=database
    )
    assert await store.drop_days(old + timedelta(days=9)) == []
    await postgres.sql("UPDATE deliveries SET state = 2", database=database)
    assert "deliveries_p20200101" in await store.drop_days(old + timedelta(days=9))


async def test_content_is_looked_for_in_so_many_messages_at_a_time(store: Store) -> None:
    """Behind many messages without content, one statement once read them all."""
    tenant, since = uuid4(), datetime.now(UTC) - timedelta(days=1)
    await store.accept([core_envelope(tenant=tenant.bytes) for _ in range(7)], sweep_after_seconds=SWEEP_AFTER)
    after, rounds = None, 0
    while True:
        after = (await store.forget_contents(tenant, since, after=after, limit=2)).after
        rounds += 1
        if after is None:
            break
    assert rounds == 4
