"""What is remembered in the order of use: bounded where it can be, and each addition costs the same."""

from __future__ import annotations

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.delivery.recent import LOOKED_AT, make_room

MOST = 10


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=200))
def test_what_is_busy_stays_and_no_addition_looks_at_all(uses: list[tuple[int, bool]]) -> None:
    kept: OrderedDict[int, int] = OrderedDict()
    busy: set[int] = set()
    looks = 0

    def may_go(key: int) -> bool:
        nonlocal looks
        looks += 1
        return key not in busy

    def use(key: int) -> None:
        nonlocal looks
        looks, before = 0, set(kept)
        if key not in kept:
            gone = [key for key, _ in make_room(kept, MOST, may_go)]
            assert before - set(kept) == set(gone)
            assert not busy & set(gone)
            kept[key] = key
        assert looks <= LOOKED_AT

    for key, is_busy in uses:
        use(key)
        (busy.add if is_busy else busy.discard)(key)
    busy.clear()
    for key in range(100, 200):
        use(key)
    assert len(kept) == MOST, "once all are at rest, what is too much is gone"
