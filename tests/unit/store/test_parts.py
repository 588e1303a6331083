"""Ids, partitions, migrations' files, rows of a batch: what needs no database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_suite import core_envelope

from smtp_proxy.store.accept import Rows
from smtp_proxy.store.claim import split_by_size
from smtp_proxy.store.ids import first_id, new_id
from smtp_proxy.store.migrate import read_migrations
from smtp_proxy.store.partitions import days, partition_name
from smtp_proxy.store.record import storable

moments = st.integers(366 * 86_400, 230 * 365 * 86_400).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@given(moments)
def test_ids_are_uuid7_and_sort_by_time(moment: datetime) -> None:
    made = new_id(moment)
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert first_id(moment) <= made < first_id(moment + timedelta(milliseconds=2))


@given(moments, st.integers(0, 40))
def test_days_begin_with_today_and_have_no_gap(moment: datetime, ahead: int) -> None:
    found = list(days(moment, ahead))
    assert len(found) == ahead + 1
    assert found[0] <= moment < found[0] + timedelta(days=1)
    assert all(b - a == timedelta(days=1) for a, b in pairwise(found))
    assert first_id(found[0]) <= new_id(moment) < first_id(found[0] + timedelta(days=1))


def test_partition_names() -> None:
    assert partition_name("envelopes", datetime(2026, 11, 25, tzinfo=UTC)) == "envelopes_p20261125"


@given(st.dictionaries(st.uuids(version=4), st.integers(0, 100), max_size=20), st.integers(0, 300))
def test_what_fits_is_kept_oldest_first(sizes: dict[UUID, int], most: int) -> None:
    kept, excess = split_by_size(sizes, most)
    assert sorted(kept + excess) == sorted(sizes)
    assert bool(kept) == bool(sizes)
    assert len(kept) <= 1 or sum(sizes[i] for i in kept) <= most
    assert not kept or kept[0] == min(sizes)


@given(st.text(st.characters()))
def test_any_reply_can_be_kept(text: str) -> None:
    kept = storable(text)
    assert "\0" not in kept
    assert len(kept) == len(text)
    kept.encode()


def test_rows_of_a_batch() -> None:
    sweep_at = datetime(2026, 1, 1, tzinfo=UTC)
    row = core_envelope(["a@x.example", "b@x.example"], b"abc", received_at_us=1_500_000)
    rows = Rows([row, core_envelope([])], sweep_at)
    envelope_id = UUID(bytes=row[0])
    assert rows.envelopes[0][0] == envelope_id
    assert rows.envelopes[0][4:6] == (2, 3)
    assert rows.envelopes[0][11] == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    assert rows.bodies[0] == (envelope_id, b"abc")
    assert rows.deliveries == [(envelope_id, 0, "a@x.example", sweep_at), (envelope_id, 1, "b@x.example", sweep_at)]


def test_rows_have_the_columns_of_dsn_only_where_somebody_asked() -> None:
    sweep_at = datetime(2026, 1, 1, tzinfo=UTC)
    plain = core_envelope(["a@x.example", "b@x.example"])
    asked = core_envelope(["c@x.example"], dsn=(1, "id", [(3, None)]))
    without = Rows([plain], sweep_at)
    assert (without.has_dsn, len(without.envelopes[0]), len(without.deliveries[0])) == (False, 12, 4)
    rows = Rows([plain, asked], sweep_at)
    assert rows.has_dsn
    assert [row[12:] for row in rows.envelopes] == [(None, None), (1, "id")]
    assert [(row[2], *row[4:]) for row in rows.deliveries] == [
        ("a@x.example", None, None),
        ("b@x.example", None, None),
        ("c@x.example", 3, None),
    ]


def test_our_migrations_are_numbered_without_a_gap() -> None:
    migrations = read_migrations()
    assert [m.number for m in migrations] == list(range(1, len(migrations) + 1))
    assert migrations[0].label == "0001_pre_spine"
    assert len({m.checksum for m in migrations}) == len(migrations)


@pytest.mark.parametrize("name", ["1_pre_x.sql", "0001_now_x.sql", "0001_pre_.sql", "readme.sql"])
def test_a_migration_with_another_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="NNNN_pre_name"):
        read_migrations({name: "SELECT 1"})


def test_a_number_is_used_once() -> None:
    with pytest.raises(ValueError, match="number 1 is taken by 0001_post_y"):
        read_migrations({"0001_pre_x.sql": "SELECT 1", "0001_post_y.sql": "SELECT 1"})
