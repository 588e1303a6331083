"""What has just come, and what is older, take turns."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.worker.waiting import NewAndOld


@dataclass(frozen=True)
class One:
    number: int
    is_new: bool


def test_new_mail_waits_behind_as_much_old_mail_as_there_is_of_itself() -> None:
    line = NewAndOld[One]()
    for number in range(100):
        line.append(One(number, is_new=False))
    for number in range(3):
        line.append(One(number, is_new=True))
    assert [(one.number, one.is_new) for one in (line.popleft() for _ in range(7))] == [
        (0, True), (0, False), (1, True), (1, False), (2, True), (2, False), (3, False),
    ]  # fmt: skip


@given(st.lists(st.booleans()))
def test_everything_comes_out_once_and_in_order_of_its_own_line(kinds: list[bool]) -> None:
    line = NewAndOld[One]()
    for number, is_new in enumerate(kinds):
        line.append(One(number, is_new))
    assert len(line) == len(kinds) == len(list(line))
    out = [line.popleft() for _ in kinds]
    for is_new in (True, False):
        came = [number for number, kind in enumerate(kinds) if kind is is_new]
        assert [one.number for one in out if one.is_new is is_new] == came
    assert not line
    with pytest.raises(IndexError):
        line.popleft()


def test_nothing_waits_after_it_was_cleared() -> None:
    line = NewAndOld[One]()
    line.append(One(1, is_new=True))
    line.append(One(2, is_new=False))
    line.clear()
    assert not line
