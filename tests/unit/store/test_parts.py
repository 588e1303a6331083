"""Ids, partitions, migrations' files, rows of a batch: what needs no database."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_suite import core_envelope

from smtp_proxy.store.accept import PART_BYTES, CoreEnvelope, encode
from smtp_proxy.store.claim import split_by_size
from smtp_proxy.store.decode import decode
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


def encoded(batch: list[CoreEnvelope], sweep_at_us: int = 0) -> bytes:
    return b"".join(encode(batch, sweep_at_us))


def decoded(encoded: bytes) -> list[list[list[bytes]]]:
    """The rows of each table, by PostgreSQL's own description of the messages and of the format."""
    tables, stream = [], b""
    while encoded:
        kind, size = encoded[:1], int.from_bytes(encoded[1:5], "big")
        if kind == b"c":
            tables.append(rows_of(stream))
            stream = b""
        else:
            assert kind == b"d"
            stream += encoded[5 : size + 1]
        encoded = encoded[size + 1 :]
    return tables


def rows_of(stream: bytes) -> list[list[bytes]]:
    rows, at = [], 19
    assert stream[:at] == b"PGCOPY\n\xff\r\n\0" + bytes(8)
    while (count := int.from_bytes(stream[at : at + 2], "big", signed=True)) >= 0:
        fields, at = [], at + 2
        for _ in range(count):
            size = max(0, int.from_bytes(stream[at : at + 4], "big", signed=True))  # no value: shown as empty
            fields.append(stream[at + 4 : at + 4 + size])
            at += 4 + size
        rows.append(fields)
    assert stream[at:] == b"\xff\xff"
    return rows


@given(st.lists(st.tuples(st.lists(st.text(max_size=9), max_size=3), st.binary(max_size=99)), min_size=1, max_size=4))
def test_a_batch_encoded_and_read_back(mails: list[tuple[list[str], bytes]]) -> None:
    batch = [core_envelope(recipients, body, received_at_us=946_684_800_000_009) for recipients, body in mails]
    assert decode(encoded(batch)) == batch
    envelopes, deliveries = decoded(encoded(batch, 946_684_800_000_000 - 1))
    assert [row[0] for row in envelopes] == [row[0] for row in batch]
    assert [row[3].decode() for row in envelopes] == [row[3] for row in batch]
    assert [int.from_bytes(row[4], "big") for row in envelopes] == [len(recipients) for recipients, _ in mails]
    assert {row[11] for row in envelopes} == {(9).to_bytes(8, "big")}
    assert [row[15] for row in envelopes] == [row[5] for row in batch]
    assert deliveries == [
        [row[0], number.to_bytes(2, "big"), recipient.encode(), b"\xff" * 8, b"", b"", b"\0\0"]
        for row in batch
        for number, recipient in enumerate(row[4])
    ]


def test_a_large_batch_goes_in_several_pieces() -> None:
    sizes = [100_000, PART_BYTES, PART_BYTES + 1, 256 * 1024, 3_000_000, 0, 100_000]
    batch = [core_envelope(["a@x.example"], random.randbytes(size)) for size in sizes]
    pieces = list(encode(batch, 0))
    envelopes, _, parts = decoded(b"".join(pieces))
    for envelope, row in zip(batch, envelopes, strict=True):
        mine = [part for part in parts if part[0] == envelope[0]]
        assert [int.from_bytes(part[1], "big") for part in mine] == list(range(len(mine)))
        assert all(len(part[2]) == PART_BYTES for part in mine[:-1])
        assert (row[15], b"".join(part[2] for part in mine)) == (
            (b"", envelope[5]) if len(envelope[5]) > PART_BYTES else (envelope[5], b"")
        )
    assert decode(b"".join(pieces)) == batch
    assert all(len(piece) < 3 * 256 * 1024 for piece in pieces)
    assert len(pieces) > 12
    assert all(list(messages(piece)) for piece in pieces)  # whole ones


def messages(piece: bytes) -> Iterator[bytes]:
    while piece:
        end = 1 + int.from_bytes(piece[1:5], "big")
        assert end <= len(piece)
        yield piece[:end]
        piece = piece[end:]


def test_what_nobody_asked_for_has_no_value() -> None:
    plain = core_envelope(["a@x.example", "b@x.example"])
    asked = core_envelope(["c@x.example", "d@x.example"], dsn=(1, "id", [(3, None), (None, "rfc822;d")]))
    assert decode(encoded([plain, asked])) == [plain, asked]


# Given to changes that are on their way beside each other.
GIVEN = {20}


def test_our_migrations_are_numbered_without_a_gap() -> None:
    migrations = read_migrations()
    numbers = [m.number for m in migrations]
    assert sorted(GIVEN | set(numbers)) == list(range(1, numbers[-1] + 1))
    assert migrations[0].label == "0001_pre_spine"
    assert len({m.checksum for m in migrations}) == len(migrations)


@pytest.mark.parametrize("name", ["1_pre_x.sql", "0001_now_x.sql", "0001_pre_.sql", "readme.sql"])
def test_a_migration_with_another_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="NNNN_pre_name"):
        read_migrations({name: "SELECT 1"})


def test_a_number_is_used_once() -> None:
    with pytest.raises(ValueError, match="number 1 is taken by 0001_post_y"):
        read_migrations({"0001_pre_x.sql": "SELECT 1", "0001_post_y.sql": "SELECT 1"})
