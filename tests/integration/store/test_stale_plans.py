"""A plan that was made while a day's tables were empty reads no more, once there is much, than what it is about.

Workers prepare their statements once and keep the plan until Postgres has counted the rows anew, which may take a
minute or longer: after midnight, after an outage, on a first day. Seen so: a claim of 200 messages, some of them new
and the others of an old backlog, read the 100,000 between them for 300 ms, since bounds alone were taken for two rows.
"""

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

MANY = 20_000
FEW = 6
WORKER = UUID(int=7)
HOOK = UUID(int=5)
_FILL = """
    WITH ids AS (SELECT * FROM unnest($1::uuid[]) AS id), envelope AS (
        INSERT INTO envelopes (id, tenant_id, credential_id, reverse_path, recipient_count, size_bytes, body_type,
            smtputf8, helo, client_address, tls, received_at, content)
        SELECT ids.id, e.tenant_id, e.credential_id, e.reverse_path, 1, e.size_bytes, e.body_type, e.smtputf8,
            e.helo, e.client_address, e.tls, now(), e.content
        FROM ids, (SELECT * FROM envelopes LIMIT 1) e
    ), attempt AS (
        INSERT INTO attempts (envelope_id, recipient_number, attempt_number, outcome, reply_code, enhanced_code,
            reply_text, remote, worker_id, started_at, finished_at, kind)
        SELECT id, 0, 1, 2, 450, '', '', 'mx:25', $2, now(), now(), 0 FROM ids
    ), event AS (
        INSERT INTO webhook_events (envelope_id, webhook_id, recipient_number, attempt_number, event, occurred_at,
            payload, state, due_at)
        SELECT id, $3, 0, 1, 'deferred', now(), '{}', 0, now() FROM ids
    )
    INSERT INTO deliveries (envelope_id, recipient_number, recipient, attempt_count, next_attempt_at, sweep_at)
    SELECT id, 0, 'a@x.example', 1, now() - interval '1 hour', now() - interval '1 hour' FROM ids
"""


def values_of(name: str, ids: list[UUID]) -> str:
    """What to execute the statement with."""
    count = len(ids)
    some = "ARRAY[" + ",".join(f"'{i}'" for i in ids) + "]::uuid[]"
    bounds = f"'{min(ids)}', '{max(ids)}'"

    def each(value: str) -> str:
        return f"ARRAY[{','.join([value] * count)}]"

    hook = each(f"'{HOOK}'::uuid")
    worker, zero, two, now, text = each(f"'{WORKER}'::uuid"), each("0"), each("2"), each("now()"), each("'mx'")
    return {
        "claim": f"{some}, {bounds}, '{WORKER}', '30 seconds'",
        "renew": f"{some}, {bounds}, '{WORKER}', '30 seconds'",
        "contents": f"{some}, {bounds}",
        "sending": f"{some}, {zero}, {two}, {worker}, {now}, {text}, {bounds}, {worker}",
        "record": f"{some}, {zero}, {two}, {two}, {zero}, {text}, {text}, {text}, {worker}, {now}, {now}, {now}, "
        f"{zero}, {bounds}, {zero}",
        "recorded": f"{some}, {zero}, {two}, {worker}, {now}, {bounds}",
        "postpone": f"{some}, {zero}, {worker}, {now}, {bounds}, {text}",
        "tell_delay": f"{some}, {zero}, {bounds}",
        "tell_webhooks": f"{some}, {zero}, {each('1')}, {worker}, {bounds}",
        "tell_changes": f"{some}, {zero}, 'held', {bounds}",
        "settle_events": f"{some}, {hook}, {zero}, {each('1')}, {zero}, {now}, {text}",
        "settled_messages": f"{some}, {bounds}, ARRAY[2, 3]",
        "replay": f"{some}, {bounds}, NULL",
        "dead_recipients": f"{some}, {bounds}",
        "these_and_contents": f"{some}, {bounds}",
        "waiting_recipients": f"{some}, {bounds}, ARRAY[0, 4]",
        "sweep": f"{count}, '15 seconds', 0",
    }[name]


NAMES = (
    "claim", "renew", "contents", "sending", "record", "recorded", "postpone", "tell_delay", "tell_webhooks",
    "tell_changes", "settle_events", "settled_messages", "replay", "dead_recipients", "these_and_contents",
    "waiting_recipients", "sweep",
)  # fmt: skip


@pytest.mark.parametrize("analyzed", [False, True], ids=["never analyzed", "analyzed when empty"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_plan_for_empty_tables_does_not_read_all_that_came_since(
    store: Store, postgres: PostgresServer, db_settings: Settings, name: str, analyzed: bool
) -> None:
    connection = await open_connection(db_settings, "test")
    if analyzed:
        await connection.execute("ANALYZE")
    await connection.execute(f"SET plan_cache_mode = force_generic_plan; PREPARE wanted AS {QUERIES[name]}")
    await connection.execute(f"EXECUTE wanted ({values_of(name, [UUID(int=1), UUID(int=2)])})")
    ids = await filled(store, postgres, db_settings)
    some = [*ids[: FEW // 2], *ids[-FEW // 2 :]]
    async with connection.transaction():
        await taken(connection, name, some)
        read = await rows_read(connection, values_of(name, some))
    await connection.close()
    assert read <= 2 * FEW, f"{name} looked at {read} rows"


async def filled(store: Store, postgres: PostgresServer, settings: Settings) -> list[UUID]:
    """Much mail with an attempt and an event each; returns its ids, in order."""
    batch = [core_envelope()]
    await store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
    now = datetime.now(UTC)
    ids = sorted(new_id(now) for _ in range(MANY))
    await postgres.sql(_FILL, ids, WORKER, HOOK, database=settings.db_name)
    return sorted([*ids, *ids_of(batch)])


async def taken(connection: asyncpg.Connection, name: str, ids: list[UUID]) -> None:
    """As a worker has them in hand, for what is about those."""
    if name in ("renew", "sending", "record", "postpone"):
        await connection.execute(
            "UPDATE deliveries SET state = 1, claimed_by = $2, sweep_at = now() + interval '1 minute' "
            "WHERE envelope_id = ANY ($1)",
            ids,
            WORKER,
        )


async def rows_read(connection: asyncpg.Connection, values: str) -> int:
    """The most rows that a node of the plan had to do with, those that it threw away among them.

    Not those that a join threw away, which others have read.
    """
    rows = await connection.fetch(f"EXPLAIN (ANALYZE, COSTS off, TIMING off) EXECUTE wanted ({values})")
    plan = "\n".join(row[0] for row in rows)
    found = re.findall(r"actual rows=([0-9]+)", plan) + re.findall(
        r"Rows Removed by (?!Join)\w+(?: \w+)?: ([0-9]+)", plan
    )
    return max(int(number) for number in found)
