"""The account itself can be wrong: what it calls lost, and which duplicates it forgives."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from ledger_harness.account import QUIET, Arrival, Arrivals, Copy, Ledger, Period, settle
from ledger_harness.faults import Fault, _nothing
from ledger_harness.run import order

A: Copy = ("<a@x>", "a@x")
BEFORE = Period(QUIET, 0.0, 0.0)


def arrivals(*times: float, answered: bool = True) -> Arrivals:
    made = Arrivals()
    made.taken[A] = [Arrival(A, at, answered) for at in times]
    return made


def test_acknowledged_and_nowhere_is_lost() -> None:
    account = settle({A: 1.0}, Arrivals(), [BEFORE], set(), grace_seconds=1)
    assert account.lost == [A]
    assert (account.total.sent, account.total.lost) == (1, 1)


def test_arrived_refused_or_held_is_not_lost() -> None:
    refused = Arrivals(refused={A})
    assert settle({A: 1.0}, arrivals(2.0), [BEFORE], set(), grace_seconds=1).lost == []
    assert settle({A: 1.0}, refused, [BEFORE], set(), grace_seconds=1).total.refused == 1
    assert settle({A: 1.0}, Arrivals(), [BEFORE], {A}, grace_seconds=1).total.held == 1


@pytest.mark.parametrize(
    ("answered", "unknown", "first_at", "forgiven"),
    [
        (True, False, 10.5, False),  # the fault hides nothing
        (False, False, 10.5, True),  # the sink never answered
        (True, True, 10.5, True),  # the worker died before it recorded
        (True, True, 9.5, True),  # as before: it had its answer just before
        (True, True, 30.0, False),  # long after
        (True, True, 5.0, False),  # long before
    ],
)
def test_a_duplicate_needs_an_excuse(answered: bool, unknown: bool, first_at: float, forgiven: bool) -> None:
    periods = [BEFORE, Period("fault", 10.0, 12.0, unknown=unknown)]
    account = settle({A: 1.0}, arrivals(first_at, 40.0, answered=answered), periods, set(), grace_seconds=1)
    assert (account.total.allowed, account.total.unexplained) == ((1, 0) if forgiven else (0, 1))


@pytest.mark.parametrize(
    ("delays", "killed_at", "forgiven"),
    [
        (True, 15.5, True),  # it waited for Postgres with its outcome, and was killed just when Postgres was back
        (False, 15.5, False),  # nothing kept it from recording
        (True, 18.0, False),  # it had had the time since
    ],
)
def test_who_waits_for_postgres_with_an_outcome_may_be_killed_with_it(
    delays: bool, killed_at: float, forgiven: bool
) -> None:
    periods = [
        BEFORE,
        Period("disk full", 10.0, 15.0, delays=delays),
        Period("kill -9 of a worker", killed_at, killed_at + 3, unknown=True),
    ]
    account = settle({A: 1.0}, arrivals(10.5, 40.0), periods, set(), grace_seconds=1)
    assert account.total.unexplained == (0 if forgiven else 1)


def test_each_further_copy_is_a_duplicate() -> None:
    account = settle({A: 1.0}, arrivals(1.0, 2.0, 3.0), [BEFORE], set(), grace_seconds=1)
    assert account.total.unexplained == 2


def test_the_table_adds_up() -> None:
    periods = [BEFORE, Period("fault", 10.0, 12.0)]
    account = settle({A: 11.0}, arrivals(11.5), periods, set(), grace_seconds=1)
    assert "| fault | 1 | 1 | 0 | 0 | 0 | 0 | 0 |" in account.markdown()
    assert "| **all** | 1 | 1 | 0 | 0 | 0 | 0 | 0 |" in account.markdown()


def test_the_ledger_is_in_its_file_before_the_sender_goes_on(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.acknowledge("<a@x>", ["a@x", "b@x"], "250 2.0.0 queued as 1")
    assert "b@x" in (tmp_path / "ledger").read_text()
    assert set(ledger.acknowledged) == {A, ("<a@x>", "b@x")}
    ledger.close()


def test_a_seed_gives_an_order_and_every_family_comes_early() -> None:
    faults = [Fault(f"{f}: {n}", _nothing, _nothing, (0, 0), unknown=False) for f in "abc" for n in range(5)]
    first = [fault.name for fault in order(faults, random.Random(7))]
    assert first == [fault.name for fault in order(faults, random.Random(7))]
    assert {name[0] for name in first[:3]} == {"a", "b", "c"}
