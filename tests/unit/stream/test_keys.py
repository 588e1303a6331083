"""Shards: every id has one, it never moves, and they fill evenly."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot
from stream_suite import envelope_id

from smtp_proxy.model.lane import Lane
from smtp_proxy.stream.keys import accepted_ms, by_shard, lane_keys, shard_of, stream_keys


def test_one_shard_has_the_plain_name() -> None:
    assert stream_keys("email-processing", 1) == ("email-processing",)


def test_several_shards_are_hash_tags() -> None:
    assert stream_keys("email-processing", 3) == (
        "email-processing:{0}",
        "email-processing:{1}",
        "email-processing:{2}",
    )


@pytest.mark.parametrize("name", ["email-processing", "a{x}b"])
@pytest.mark.parametrize("shards", [1, 3])
def test_the_lanes_of_a_shard_lie_in_one_slot(name: str, shards: int) -> None:
    keys = lane_keys(name, shards)
    assert not set(keys[Lane.TRANSACTIONAL]) & set(keys[Lane.BULK])
    for first, bulk in zip(keys[Lane.TRANSACTIONAL], keys[Lane.BULK], strict=True):
        assert key_slot(first.encode()) == key_slot(bulk.encode()), (first, bulk)


@given(st.lists(st.uuids()), st.integers(1, 64))
def test_every_id_lands_in_its_own_shard(ids: list[UUID], shards: int) -> None:
    groups = by_shard([each.bytes for each in ids], shards)
    assert all(shard_of(UUID(bytes=packed), shards) == shard for shard, group in groups.items() for packed in group)
    assert Counter(packed for group in groups.values() for packed in group) == Counter(i.bytes for i in ids)


def test_shards_fill_evenly() -> None:
    sizes = Counter(shard_of(envelope_id(), 8) for _ in range(8000))
    assert min(sizes.values()) > 800


def test_an_id_tells_when_it_was_accepted() -> None:
    assert accepted_ms(UUID("019a0000-0000-7000-8000-000000000000")) == 0x019A00000000
