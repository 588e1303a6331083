"""Shares of places: exact in the long run, whatever the pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.model.lane import BULK_SHARE, Lane, Shares


@given(st.lists(st.integers(0, 500), max_size=200))
def test_bulk_gets_its_share_of_any_pieces(pieces: list[int]) -> None:
    shares = Shares()
    given_out = [shares.bulk(places) for places in pieces]
    assert all(0 <= bulk <= places for bulk, places in zip(given_out, pieces, strict=True))
    assert abs(sum(given_out) - sum(pieces) * BULK_SHARE) < 1


def test_of_single_places_every_fifth_is_bulk() -> None:
    shares = Shares()
    assert [shares.bulk(1) for _ in range(10)] == [0, 0, 0, 0, 1] * 2


def test_a_lane_of_a_later_release_is_no_error() -> None:
    assert Lane(7) is Lane.TRANSACTIONAL
