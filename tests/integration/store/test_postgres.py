"""The store on a real Postgres: the common suite, and what only Postgres does."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from store_suite import LEASE, SWEEP_AFTER, TENANT, Stores, StoreSuite, attempt_for, core_envelope, ids_of
from store_suite.outcomes import KEY, SPELLINGS

from smtp_proxy.cli.messages import describe_states
from smtp_proxy.errors import StoreError, StoreUnavailable
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.model.limits import AtLimit, Placement
from smtp_proxy.store import Store, listing, mail_out
from smtp_proxy.store.ids import new_id
from smtp_proxy.store.partitions import TABLES, partition_name
from smtp_proxy.store.pool import open_connection
from smtp_proxy.store.queries import QUERIES
from smtp_proxy.telemetry import logs

if TYPE_CHECKING:
    from fix_postgres import PostgresServer

    from smtp_proxy.config import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def stores(store: Store, postgres: PostgresServer, db_settings: Settings) -> Stores:
    async def let_pass(seconds: float) -> None:
        await postgres.let_pass(seconds, database=db_settings.db_name)

    return Stores(store, let_pass)


class TestPostgres(StoreSuite):
    pass


@pytest.mark.parametrize("kept", ["\u00e9va@b\u00fccher.example", "\u00e9va@xn--bcher-kva.example"])
async def test_what_an_earlier_release_suppressed_stays_so(
    store: Store, postgres: PostgresServer, db_settings: Settings, kept: str
) -> None:
    tenant = (await store.create_tenant("acme")).id
    statement = "INSERT INTO suppressions (tenant_id, address, reason) VALUES ($1, $2, 'gone')"
    await postgres.sql(statement, tenant, kept, database=db_settings.db_name)
    await store.accept([row := core_envelope(SPELLINGS, tenant=tenant.bytes)], sweep_after_seconds=SWEEP_AFTER)
    (job,) = await store.claim([UUID(bytes=row[0])], uuid4(), LEASE)
    assert [r.suppressed for r in job.recipients] == ["gone"] * len(SPELLINGS)
    assert await store.add_suppressions(tenant, SPELLINGS, "again") == 0
    (found,) = await store.list_suppressions(tenant, address=SPELLINGS[2])
    assert found.address == kept
    assert await store.remove_suppressions(tenant, [SPELLINGS[3]]) == [KEY]
    assert await store.list_suppressions(tenant) == []


async def test_an_address_is_looked_up_by_its_key(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    """Two collations that differ would read the tenant's whole list for each recipient."""
    tenant = (await store.create_tenant("acme")).id
    await store.add_suppressions(tenant, [f"{n}@x.example" for n in range(5000)], "imported")
    await postgres.sql("ANALYZE suppressions", database=db_settings.db_name)
    (condition,) = re.findall(r"SELECT s\.reason FROM suppressions s WHERE (.*)", QUERIES["claim"])
    rows = await postgres.sql(
        "EXPLAIN SELECT s.reason FROM (VALUES ($1::uuid, '7@X.EXAMPLE')) AS d (tenant_id, recipient), suppressions s "
        f"WHERE {condition.replace('e.tenant_id', 'd.tenant_id')}",
        tenant,
        database=db_settings.db_name,
    )
    plan = "\n".join(row[0] for row in rows)
    (used,) = re.findall(r"Index Cond: (.*)", plan)
    assert "address" in used, plan


async def counts(postgres: PostgresServer, settings: Settings, table: str) -> dict[str, int]:
    """Rows by partition."""
    rows = await postgres.sql(
        f"SELECT tableoid::regclass::text AS name, count(*) AS rows FROM {table} GROUP BY 1", database=settings.db_name
    )
    return {row["name"]: row["rows"] for row in rows}


async def test_rows_go_to_the_partition_of_their_day(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    today = datetime.now(UTC)
    batch = [core_envelope(id=new_id(today + timedelta(days=n)).bytes) for n in (0, 1, 1)]
    await store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
    for table in ("envelopes", "deliveries"):
        assert await counts(postgres, db_settings, table) == {
            partition_name(table, today): 1,
            partition_name(table, today + timedelta(days=1)): 2,
        }


async def test_rows_without_a_partition_are_kept_and_move_when_it_is_made(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    far = datetime.now(UTC) + timedelta(days=40)
    batch = [core_envelope(id=new_id(far + timedelta(seconds=n)).bytes) for n in range(3)]
    await store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
    assert await counts(postgres, db_settings, "envelopes") == {"envelopes_default": 3}
    made = await store.ensure_partitions(far, 0)
    assert made == [partition_name(table, far) for table in TABLES]
    for table in ("envelopes", "deliveries"):
        assert await counts(postgres, db_settings, table) == {partition_name(table, far): 3}
    assert len(await store.claim(ids_of(batch), uuid4(), LEASE)) == 3


async def test_partitions_are_named_and_bounded_by_days(postgres: PostgresServer, db_settings: Settings) -> None:
    rows = await postgres.sql(
        "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_class c "
        "JOIN pg_inherits i ON i.inhrelid = c.oid WHERE i.inhparent = 'envelopes'::regclass",
        database=db_settings.db_name,
    )
    bounds = {row["relname"]: row["bound"] for row in rows}
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert len(bounds) == db_settings.partition_days_ahead + 2
    first = f"{int(today.timestamp() * 1000):012x}"
    assert f"FROM ('{first[:8]}-{first[8:]}-0000-0000-000000000000')" in bounds[partition_name("envelopes", today)]
    assert bounds["envelopes_default"] == "DEFAULT"


async def test_a_4_kib_body_lies_in_its_row(store: Store, postgres: PostgresServer, db_settings: Settings) -> None:
    await store.accept([core_envelope(body=b"words that compress well, " * 160)], sweep_after_seconds=SWEEP_AFTER)
    (row,) = await postgres.sql(
        "SELECT pg_column_size(content) AS size, octet_length(content) AS length FROM envelopes",
        database=db_settings.db_name,
    )
    assert row["size"] >= row["length"]
    (toast,) = await postgres.sql(
        "SELECT sum(pg_relation_size(c.reltoastrelid)) AS bytes FROM pg_class c "
        "JOIN pg_inherits i ON i.inhrelid = c.oid "
        "WHERE i.inhparent = 'envelopes'::regclass",
        database=db_settings.db_name,
    )
    assert toast["bytes"] == 0


async def test_a_large_body_comes_back_whole(store: Store) -> None:
    body = bytes(range(256)) * 4096 * 8  # 8 MiB
    batch = [core_envelope(body=body), core_envelope(body=b"")]
    await store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
    bodies = {job.envelope.id: job.envelope.body for job in await store.claim(ids_of(batch), uuid4(), LEASE)}
    assert [bodies[i] == row[5] for i, row in zip(ids_of(batch), batch, strict=True)] == [True, True]


async def test_a_claim_reads_only_the_partitions_of_its_envelopes(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    batch = [core_envelope() for _ in range(3)]
    await store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
    ids = ids_of(batch)
    literal = "ARRAY[" + ",".join(f"'{i}'" for i in ids) + "]"
    statement = QUERIES["claim"]
    for parameter, value in {
        "$1": literal,
        "$2": f"'{min(ids)}'",
        "$3": f"'{max(ids)}'",
        "$4": f"'{uuid4()}'",
        "$5": "'30 seconds'",
    }.items():
        statement = statement.replace(parameter, value)
    plan = "\n".join(row[0] for row in await postgres.sql(f"EXPLAIN {statement}", database=db_settings.db_name))
    today = datetime.now(UTC)
    assert partition_name("deliveries", today) in plan
    assert "_default" not in plan
    assert partition_name("deliveries", today + timedelta(days=1)) not in plan


LOW, HIGH = UUID(int=0), UUID(int=2**128 - 1)
HELD_STATEMENTS = {
    "held_until": f"'{LOW}', '{HIGH}', 1000",
    "release_held": f"'{LOW}', '{HIGH}', '{TENANT}'",
    "held_by_tenant": "",
    "in_open_state": "4, 10000",
}


@pytest.mark.parametrize("name", HELD_STATEMENTS)
async def test_held_mail_is_found_without_reading_the_rest(
    store: Store, postgres: PostgresServer, db_settings: Settings, name: str
) -> None:
    """All of them would read each delivery there is, or each message, without the index or with another plan."""
    batch = [core_envelope() for _ in range(400)]
    held = {row[0]: Placement(held=True) for row in batch[:3]}
    await store.accept(batch, sweep_after_seconds=SWEEP_AFTER, placements=held)
    await postgres.sql("UPDATE deliveries SET state = 2 WHERE state = 0", database=db_settings.db_name)
    connection = await open_connection(db_settings, "test")
    await connection.execute("ANALYZE")
    index = await connection.fetchval(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "JOIN pg_index x ON x.indexrelid = c.oid "
        "WHERE i.inhparent = 'deliveries_held'::regclass AND x.indrelid = $1::text::regclass",
        partition_name("deliveries", datetime.now(UTC)),
    )
    values = HELD_STATEMENTS[name]
    if name == "in_open_state":  # planned for its values
        await connection.execute("SET plan_cache_mode = force_custom_plan")
    await connection.execute(f"PREPARE wanted AS {QUERIES[name]}")
    rows = await connection.fetch(f"EXPLAIN (ANALYZE, COSTS off) EXECUTE wanted{f' ({values})' if values else ''}")
    await connection.close()
    plan = "\n".join(row[0] for row in rows)
    assert index in plan, plan
    read = [int(match) for match in re.findall(r"rows=([0-9]+)", plan)]
    assert max(read) <= 3, plan
    assert "Rows Removed" not in plan, plan


async def test_a_rare_state_is_looked_for_in_short_statements(
    store: Store, postgres: PostgresServer, db_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was one statement over all mail, which the statement time-out ended once there was much."""
    monkeypatch.setattr(listing, "_PAGE", 10)
    batch = [core_envelope() for _ in range(95)]
    await store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
    ids = sorted(ids_of(batch))
    for state, some in ((3, ids[::40]), (2, ids[1::2])):
        await postgres.sql(
            "UPDATE deliveries SET state = $1 WHERE envelope_id = ANY ($2::uuid[])",
            state, some, database=db_settings.db_name,
        )  # fmt: skip
    looks = []
    look = listing.look
    monkeypatch.setattr(listing, "look", lambda *arguments: looks.append(1) or look(*arguments))
    for state, wanted in ((3, ids[::40]), (2, ids[1::2])):
        found = await store.list_messages(state=DeliveryState(state), limit=100)
        assert [s.id for s in found] == sorted(wanted, reverse=True)
        assert len(looks) == 10, "pages of ten"
        looks.clear()
    # Whoever has no patience gets it in parts, each of one statement.
    before, pages = None, []
    while before is not None or not pages:
        page, before = await store.page_of_messages(
            tenant_id=None, state=DeliveryState(3), limit=100, before=before, patience_seconds=0
        )
        pages.append([s.id for s in page])
    assert len(pages) == len(looks) == 10
    assert [] in pages[:-1]
    assert [i for page in pages for i in page] == sorted(ids[::40], reverse=True)
    looks.clear()
    (newest,) = await store.list_messages(state=DeliveryState.REFUSED, limit=1)
    assert (newest.id, len(looks) < 4) == (ids[80], True)


async def test_of_messages_to_many_in_an_open_state_none_is_left_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deliveries were looked up to a bound, and few messages taken for all of them."""
    monkeypatch.setattr(listing, "_PAGE", 10)
    batch = [core_envelope([f"{n}@x.example" for n in range(4)]) for _ in range(7)]
    await store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
    found = await store.list_messages(state=DeliveryState.QUEUED)
    assert [s.id for s in found] == sorted(ids_of(batch), reverse=True)


@pytest.mark.parametrize("tenant", ["NULL", f"'{TENANT}'"])
async def test_messages_in_a_state_are_chosen_without_reading_bodies(
    store: Store, db_settings: Settings, tenant: str
) -> None:
    """They lie in the envelopes' rows: a page of memory for each one or two messages that are looked at."""
    batch = [core_envelope(body=b"x" * 4000) for _ in range(300)]
    await store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
    connection = await open_connection(db_settings, "test")
    rare = sorted(ids_of(batch))[7]
    await connection.execute("UPDATE deliveries SET state = 3 WHERE envelope_id = $1", rare)
    await connection.execute("VACUUM ANALYZE")
    await connection.execute("SET plan_cache_mode = force_custom_plan")
    await connection.execute(f"PREPARE wanted AS {QUERIES['list_messages']}")
    values = f"{tenant}, 3, NULL, 10, '{LOW}', NULL"
    rows = await connection.fetch(f"EXPLAIN (ANALYZE, COSTS off, TIMING off) EXECUTE wanted ({values})")
    await connection.close()
    plan = "\n".join(row[0] for row in rows)
    day = partition_name("envelopes", datetime.now(UTC))
    reads = re.findall(rf"(Index Only Scan|\w+ Scan).* {day} .*rows=([0-9.]+) loops=([0-9]+)", plan)
    assert len(reads) == 2, plan
    for kind, found, loops in reads:
        assert kind == "Index Only Scan" or float(found) * int(loops) <= 1, plan
    assert "Heap Fetches: 0" in plan, plan


async def test_the_depth_is_not_counted_to_the_end(db_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for every second or so, above all while much waits."""
    monkeypatch.setattr(mail_out, "_DEPTH_COUNTED", 7)
    modest = db_settings.model_copy(update={"ingress_ready_depth_high": 1, "ingress_ready_depth_low": 0})
    store = await Store.connect(modest, purpose="test")
    await store.accept([core_envelope() for _ in range(20)], sweep_after_seconds=SWEEP_AFTER)
    assert await store.depth() == 7
    await store.close()


async def test_what_a_later_release_wrote_is_shown(
    store: Store, stores: Stores, postgres: PostgresServer, db_settings: Settings
) -> None:
    """A release that knows no state 9 runs beside one that does; its `messages list` once failed for that."""
    worker, ids = uuid4(), await stores.accepted(core_envelope(["a@x.example", "b@x.example"]))
    (job,) = await store.claim(ids, worker, LEASE)
    await store.record([attempt_for(job, worker, Outcome.REFUSED)])
    await postgres.sql("UPDATE deliveries SET state = 9 WHERE recipient_number = 0", database=db_settings.db_name)
    await postgres.sql("UPDATE attempts SET outcome = 9", database=db_settings.db_name)
    (summary,) = await store.list_messages()
    message = await store.message(ids[0])
    for states in (summary.states, [d.state for d in message.deliveries]):
        assert list(states) == [9, DeliveryState.SENDING]
        assert describe_states(states) == "1 sending, 1 unknown_9"
    assert [a.outcome.name for a in message.deliveries[0].attempts] == ["UNKNOWN_9"]
    assert json.loads(json.dumps(logs.plain(asdict(summary))))["states"] == ["unknown_9", "sending"]
    assert [s.id for s in await store.list_messages(state=DeliveryState.SENDING)] == ids

    tenant = await store.create_tenant("acme")
    await postgres.sql("ALTER TABLE tenants DROP CONSTRAINT tenants_at_limit_check", database=db_settings.db_name)
    await postgres.sql("UPDATE tenants SET at_limit = 'ask', messages_per_minute = 1", database=db_settings.db_name)
    (limited,) = await store.limited_tenants()
    assert (limited.id, limited.limits.at_limit) == (tenant.id, AtLimit.REJECT)


async def test_a_value_that_postgres_refuses_is_not_a_time_of_trouble(store: Store) -> None:
    with pytest.raises(StoreError) as caught:
        await store.accept([core_envelope(reverse_path="a\0b@example.com")], sweep_after_seconds=SWEEP_AFTER)
    assert not isinstance(caught.value, StoreUnavailable)
    assert not caught.value.temporary
    await store.ping()


async def test_a_credential_of_a_disabled_tenant_is_disabled(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    tenant = await store.create_tenant("acme")
    await store.create_credential(tenant.id, "app", "hash")
    await postgres.sql("UPDATE tenants SET disabled_at = now()", database=db_settings.db_name)
    credential = await store.credential_by_username("app")
    assert credential is not None
    assert credential.disabled_at is not None


async def test_depth_leaves_deferred_mail_out(stores: Stores, postgres: PostgresServer, db_settings: Settings) -> None:
    await stores.accepted(*(core_envelope() for _ in range(5)))
    await postgres.sql(
        "UPDATE deliveries SET next_attempt_at = now() + interval '1 hour', sweep_at = now() + interval '1 hour' "
        "WHERE envelope_id IN (SELECT envelope_id FROM deliveries LIMIT 2)",
        database=db_settings.db_name,
    )
    assert await stores.store.depth() == 3


async def test_a_probe_goes_to_disk_and_leaves_nothing(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    (before,) = await postgres.sql("SELECT pg_current_wal_insert_lsn() AS lsn")
    await store.probe_commit()
    (after,) = await postgres.sql("SELECT pg_current_wal_flush_lsn() > $1 AS flushed", before["lsn"])
    assert after["flushed"]
    for table in TABLES:
        assert await counts(postgres, db_settings, table) == {}


async def test_connections_say_who_they_are(store: Store, postgres: PostgresServer, db_settings: Settings) -> None:
    await store.ping()
    rows = await postgres.sql(
        "SELECT application_name FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
        db_settings.db_name,
    )
    assert {row["application_name"] for row in rows} == {"smtp-proxy test"}


async def test_ids_may_be_of_any_uuid_class(store: Store) -> None:
    batch = [core_envelope()]
    await store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
    (job,) = await store.claim([UUID(str(i)) for i in ids_of(batch)], uuid4(), LEASE)
    assert {job.envelope.id} == set(ids_of(batch))
    assert isinstance(job.envelope.id, UUID)


async def test_a_process_takes_no_more_connections_than_its_pool(
    postgres: PostgresServer, db_settings: Settings
) -> None:
    """REQ-INFRA-SCALE-003: work beyond the pool waits for a connection instead of opening one."""
    store = await Store.connect(db_settings.model_copy(update={"db_pool_size": 2}), purpose="pool test")
    try:
        await asyncio.gather(*(store.accept([core_envelope()], sweep_after_seconds=SWEEP_AFTER) for _ in range(50)))
        rows = await postgres.sql(
            "SELECT count(*) AS open FROM pg_stat_activity WHERE application_name = 'smtp-proxy pool test'"
        )
        assert rows[0]["open"] == 2
        assert len(await store.list_messages(limit=100)) == 50
    finally:
        await store.close()


async def test_who_takes_no_mail_has_the_whole_pool(postgres: PostgresServer, db_settings: Settings) -> None:
    """A worker, or a command, once left two of its connections to writers that it never opened."""
    three = db_settings.model_copy(update={"db_pool_size": 3, "ingress_committers": 2})
    store = await Store.connect(three, purpose="worker test", accepts=False)
    met = asyncio.Barrier(3)

    async def with_two_others() -> None:
        async with store._connection("meeting") as connection:
            await connection.execute(QUERIES["ping"])
            await met.wait()

    try:
        async with asyncio.timeout(4):
            await asyncio.gather(*(with_two_others() for _ in range(3)))
        rows = await postgres.sql(
            "SELECT count(*) AS open FROM pg_stat_activity WHERE application_name = 'smtp-proxy worker test'"
        )
        assert rows[0]["open"] == 3
        with pytest.raises(RuntimeError, match="accepts=False"):
            await store.accept([core_envelope()], sweep_after_seconds=SWEEP_AFTER)
    finally:
        await store.close()


@pytest.mark.parametrize("placed", [False, True])
async def test_no_answer_waits_for_a_timer(store: Store, placed: bool) -> None:
    """The kernel wakes us for whole answers only, and those to longer queries come in more words (a doze of 0.25 s)."""
    took = []
    for _ in range(5):
        batch = [core_envelope(), core_envelope()]
        began = time.monotonic()
        placements = {batch[0][0]: Placement(held=True)} if placed else None
        await store.accept(batch, sweep_after_seconds=SWEEP_AFTER, placements=placements)
        await store.probe_commit()
        took.append(time.monotonic() - began)
    assert min(took) < 0.2
