"""Days that are dropped whole, on a real Postgres: never with mail in them that is not settled."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from store_suite import SWEEP_AFTER, attempt_for, core_envelope

from smtp_proxy.clock import ManualClock
from smtp_proxy.errors import NotFound, SchemaBusy
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.change import Change
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.model.retention import Retention
from smtp_proxy.store import Store
from smtp_proxy.store.ids import new_id
from smtp_proxy.store.partitions import TABLES
from smtp_proxy.store.retention import _MARK
from smtp_proxy.telemetry.metrics import BODIES_MISSING
from smtp_proxy.worker.retention import Retention as Keeper

if TYPE_CHECKING:
    from fix_postgres import PostgresServer

    from smtp_proxy.config import Settings

pytestmark = pytest.mark.integration
OLD = datetime(2020, 1, 1, 12, tzinfo=UTC)  # before the days that there are


async def mail(store: Store, tenant: UUID, at: datetime, *outcomes: Outcome) -> UUID:
    row = core_envelope([f"{n}@x.example" for n in range(max(1, len(outcomes)))], tenant=tenant.bytes)
    row = (new_id(at).bytes, *row[1:])
    await store.accept([row], sweep_after_seconds=SWEEP_AFTER)
    envelope_id, worker = UUID(bytes=row[0]), uuid4()
    if outcomes:
        (job,) = await store.claim([envelope_id], worker, 60.0)
        await store.record([attempt_for(job, worker, o, recipient=n) for n, o in enumerate(outcomes)])
    return envelope_id


async def tables(postgres: PostgresServer, settings: Settings, day: str) -> set[str]:
    rows = await postgres.sql(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ $1", f"_p{day}$", database=settings.db_name
    )
    return {row["relname"] for row in rows}


async def test_a_day_is_dropped_when_all_of_it_is_settled(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    tenant = (await store.create_tenant("acme")).id
    await store.ensure_partitions(OLD, 2)
    settled = await mail(store, tenant, OLD, Outcome.DELIVERED, Outcome.REFUSED)
    waiting = await mail(store, tenant, OLD + timedelta(days=1))
    later = await mail(store, tenant, OLD + timedelta(days=2), Outcome.DELIVERED)

    assert await store.drop_days(OLD) == [], "the day has not ended by then"
    assert set(await store.drop_days(OLD + timedelta(days=2))) == {f"{table}_p20200101" for table in TABLES}
    with pytest.raises(NotFound):
        await store.message(settled)
    assert (await store.message(waiting)).summary.id == waiting
    assert (await store.message(later)).summary.id == later
    assert await tables(postgres, db_settings, "20200102") == {f"{table}_p20200102" for table in TABLES}
    (job,) = await store.claim([waiting], worker := uuid4(), 60.0)
    await store.record([attempt_for(job, worker, Outcome.DELIVERED)])
    assert len(await store.drop_days(OLD + timedelta(days=2))) == len(TABLES)


@pytest.mark.parametrize("state", [0, 1, 4, 77])
async def test_what_is_open_is_never_dropped(
    store: Store, postgres: PostgresServer, db_settings: Settings, state: int
) -> None:
    """77 is a state of a later release."""
    await store.ensure_partitions(OLD, 0)
    envelope_id = await mail(store, uuid4(), OLD)
    await postgres.sql("UPDATE deliveries SET state = $1", state, database=db_settings.db_name)
    assert await store.drop_days(OLD + timedelta(days=400)) == []
    assert (await store.message(envelope_id)).summary.id == envelope_id


async def test_deliveries_in_the_default_partition_keep_their_day(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    await store.ensure_partitions(OLD, 0)
    for statement in (
        "ALTER TABLE deliveries DETACH PARTITION deliveries_p20200101",
        "DROP TABLE deliveries_p20200101",
    ):
        await postgres.sql(statement, database=db_settings.db_name)
    envelope_id = await mail(store, uuid4(), OLD)
    assert await store.drop_days(OLD + timedelta(days=400)) == []
    assert len((await store.message(envelope_id)).deliveries) == 1


async def test_a_drop_that_was_broken_off_is_finished(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    await store.ensure_partitions(OLD, 0)
    for table in TABLES:
        await postgres.sql(f"ALTER TABLE {table} DETACH PARTITION {table}_p20200101", database=db_settings.db_name)
        await postgres.sql(f"COMMENT ON TABLE {table}_p20200101 IS '{_MARK}'", database=db_settings.db_name)
    assert len(await store.drop_days(datetime(2019, 1, 1, tzinfo=UTC))) == len(TABLES)
    assert await tables(postgres, db_settings, "20200101") == set()


async def test_a_day_that_others_have_detached_is_not_ours_to_drop(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    """An operator may keep days elsewhere; they were once dropped by their names alone."""
    await store.ensure_partitions(OLD, 0)
    await postgres.sql("ALTER TABLE envelopes DETACH PARTITION envelopes_p20200101", database=db_settings.db_name)
    assert "envelopes_p20200101" not in await store.drop_days(OLD + timedelta(days=9))
    assert await tables(postgres, db_settings, "20200101") == {"envelopes_p20200101"}


async def test_content_goes_after_a_replay_or_the_replay_finds_none(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    """Replayed in the moment in which the last recipient is settled, mail was once queued without its content."""
    tenant = (await store.create_tenant("acme")).id
    await store.set_retention(Retention(tenant, None, keep_bodies=False))
    for _ in range(20):
        row = core_envelope(["a@x.example", "b@x.example"], tenant=tenant.bytes)
        await store.accept([row], sweep_after_seconds=SWEEP_AFTER)
        envelope_id, worker = UUID(bytes=row[0]), uuid4()
        (job,) = await store.claim([envelope_id], worker, 60.0)
        await store.record([attempt_for(job, worker, Outcome.REFUSED, recipient=0)])
        last = store.record([attempt_for(job, worker, Outcome.DELIVERED, recipient=1)])
        _, replayed = await asyncio.gather(last, store.replay([envelope_id]))
        (left,) = await postgres.sql(
            "SELECT content IS NOT NULL AS kept FROM envelopes WHERE id = $1", envelope_id, database=db_settings.db_name
        )
        assert left["kept"] == bool(replayed)


EVENT = (
    "INSERT INTO webhook_events (envelope_id, webhook_id, recipient_number, attempt_number, event, occurred_at, "
    "payload, due_at) VALUES ($1, gen_random_uuid(), 0, 1, 'delivered', $2, '{}', $2)"
)


async def test_mail_stays_until_its_events_are_told_or_given_up(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    """With a retention below WEBHOOK_GIVE_UP_SECONDS an endpoint that was away for a day once never heard of it."""
    tenant, day = (await store.create_tenant("acme")).id, f"{OLD:%Y%m%d}"
    await store.ensure_partitions(OLD, 2)
    waiting, told = [await mail(store, tenant, OLD, Outcome.DELIVERED) for _ in range(2)]
    await postgres.sql(EVENT, waiting, datetime.now(UTC), database=db_settings.db_name)
    after = OLD + timedelta(days=1)
    assert await store.drop_days(after) == []
    assert (await store.expire_messages(tenant, after))[0] == 1
    assert (await store.message(waiting)).summary.id == waiting
    with pytest.raises(NotFound):
        await store.message(told)
    long_ago = timedelta(seconds=db_settings.webhook_give_up_seconds + 60)
    await postgres.sql(
        "UPDATE webhook_events SET occurred_at = $1, due_at = $1",
        datetime.now(UTC) - long_ago,
        database=db_settings.db_name,
    )
    await postgres.sql("UPDATE webhook_events SET due_at = now()", database=db_settings.db_name)  # as replay does
    assert await store.drop_days(after) == [], "it was asked for again"
    await postgres.sql(
        "UPDATE webhook_events SET due_at = $1", datetime.now(UTC) - long_ago, database=db_settings.db_name
    )
    assert f"webhook_events_p{day}" in await store.drop_days(after)


async def test_mail_without_content_comes_with_its_trouble(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    """It was once left claimed for as long as the worker lived, and later set aside for ever without a word."""
    lost, good = await mail(store, uuid4(), datetime.now(UTC)), await mail(store, uuid4(), datetime.now(UTC))
    await postgres.sql("UPDATE envelopes SET content = NULL WHERE id = $1", lost, database=db_settings.db_name)
    before = BODIES_MISSING._value.get()
    jobs = {job.envelope.id: job for job in await store.claim([lost, good], uuid4(), 60.0)}
    assert BODIES_MISSING._value.get() == before + 1, "for an alarm"
    assert "body is missing" in (jobs[lost].trouble or "")
    assert (jobs[lost].envelope.body, jobs[good].trouble) == (b"", None)


async def test_a_message_that_can_not_be_read_keeps_no_other(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    """Of a later release, say. One such row once ended every worker that claimed it, one after the other."""
    strange, good = [await mail(store, uuid4(), datetime.now(UTC)) for _ in range(2)]
    await postgres.sql("UPDATE envelopes SET body_type = 99 WHERE id = $1", strange, database=db_settings.db_name)
    (job,) = await store.claim([strange, good], uuid4(), 60.0)
    assert job.envelope.id == good
    (delivery,) = (await store.message(good)).deliveries
    assert delivery.state is DeliveryState.SENDING
    (left,) = await postgres.sql(
        "SELECT state, claimed_by, split_part(waits_for, ':', 1) FROM deliveries WHERE envelope_id = $1",
        strange,
        database=db_settings.db_name,
    )
    assert tuple(left) == (DeliveryState.QUEUED, None, "this release can not read it")


async def test_what_is_cancelled_keeps_no_content_either(
    store: Store, postgres: PostgresServer, db_settings: Settings
) -> None:
    tenant = (await store.create_tenant("acme")).id
    await store.set_retention(Retention(tenant, None, keep_bodies=False))
    waiting = await mail(store, tenant, datetime.now(UTC))
    assert await store.change(Change.CANCEL, [waiting]) == [waiting]
    (left,) = await postgres.sql("SELECT content FROM envelopes WHERE id = $1", waiting, database=db_settings.db_name)
    assert left["content"] is None


async def test_a_drop_keeps_nobody_waiting_and_gives_up(
    store: Store, postgres: PostgresServer, db_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smtp_proxy.store.retention._PATIENCE_SECONDS", 0.0)
    hasty = await Store.connect(db_settings.model_copy(update={"migrate_lock_seconds": 0.2}))
    await store.ensure_partitions(OLD, 0)
    reading = asyncio.create_task(
        postgres.sql("SELECT pg_sleep(2) FROM (SELECT count(*) FROM envelopes) c", database=db_settings.db_name)
    )
    await asyncio.sleep(0.3)
    dropping = asyncio.create_task(hasty.drop_days(OLD + timedelta(days=9)))
    async with asyncio.timeout(1.5):
        await mail(store, uuid4(), datetime.now(UTC), Outcome.DELIVERED)
    with pytest.raises(SchemaBusy):
        await dropping
    await reading
    assert len(await hasty.drop_days(OLD + timedelta(days=9))) == len(TABLES)
    await hasty.close()


async def test_a_round_keeps_each_tenants_mail_as_long_as_it_wants(store: Store, db_settings: Settings) -> None:
    """One tenant for 10 days, one as the setting says (20), one for 40: then no day is dropped before."""
    tenants = {name: (await store.create_tenant(name)).id for name in ("short", "default", "long")}
    await store.set_retention(Retention(tenants["short"], 10))
    await store.set_retention(Retention(tenants["long"], 40))
    clock = ManualClock(OLD)
    keeper = Keeper(db_settings.model_copy(update={"retention_days": 20}), store, clock)
    await store.ensure_partitions(OLD, 0)
    ids = {name: await mail(store, tenant, OLD, Outcome.DELIVERED) for name, tenant in tenants.items()}
    waiting = await mail(store, tenants["short"], OLD)

    async def left() -> set[str]:
        known = {summary.id for summary in await store.list_messages()}
        assert waiting in known
        return {name for name, envelope_id in ids.items() if envelope_id in known}

    for days, expected in ((9, {"short", "default", "long"}), (11, {"default", "long"}), (21, {"long"}), (43, set())):
        clock.advance((OLD + timedelta(days=days) - clock.now()).total_seconds())
        await keeper.round()
        assert await left() == expected, days
    (job,) = await store.claim([waiting], worker := uuid4(), 60.0)
    await store.record([attempt_for(job, worker, Outcome.DELIVERED)])
    await keeper.round()
    assert await store.list_messages() == []


async def test_content_that_slipped_through_goes_with_a_round(store: Store, db_settings: Settings) -> None:
    tenant = (await store.create_tenant("acme")).id
    now = datetime.now(UTC)
    settled = await mail(store, tenant, now, Outcome.DELIVERED)
    waiting = await mail(store, tenant, now)
    await store.set_retention(Retention(tenant, keep_bodies=False))
    await Keeper(db_settings, store, ManualClock(now)).round()
    (job,) = await store.claim([waiting], uuid4(), 60.0)
    assert job.envelope.body
    async with store._connection("looking") as connection:
        row = await connection.fetchrow("SELECT content FROM envelopes WHERE id = $1", settled)
    assert row["content"] is None
