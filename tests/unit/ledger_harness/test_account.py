"""The account itself can be wrong: what it calls lost, and which duplicates it forgives."""

from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path

import pytest
from ledger_harness.account import QUIET, Account, Arrival, Arrivals, Copy, Ledger, Period, Rules, settle
from ledger_harness.document import in_words, kind, put_into
from ledger_harness.faults import Fault, _nothing
from ledger_harness.run import Plan, order
from ledger_harness.senders import body_of, stuffed
from ledger_harness.sink import Sink, is_whole

from smtp_proxy.model.policy import OnUnknown

A: Copy = ("<a@x>", "a@x")
BEFORE = Period(QUIET, 0.0, 0.0)


RULES = Rules(grace_seconds=1, data_seconds=2)
HOLDS = Rules(grace_seconds=1, data_seconds=2, holds=True)
OLD_WORKER = Rules(grace_seconds=1, data_seconds=2, unledgered="worker-b")
FIRST, SECOND = "worker-a", "worker-b"


def arrivals(*times: float, answered: bool = True, by: str = FIRST) -> Arrivals:
    made = Arrivals()
    made.taken[A] = [Arrival(A, at, answered, by) for at in times]
    return made


def account_of(
    came: Arrivals, *periods: Period, held: frozenset[Copy] = frozenset(), unknown: int = 0, rules: Rules = RULES
) -> Account:
    return settle({A: 1.0}, came, [BEFORE, *periods], set(held), {A: unknown}, rules)


def duplicates(account: Account) -> tuple[int, int, int]:
    total = account.total
    return total.recorded, total.unrecorded, total.unexplained


def test_acknowledged_and_nowhere_is_lost() -> None:
    account = account_of(Arrivals())
    assert account.lost == [A]
    assert (account.total.sent, account.total.lost) == (1, 1)
    assert not account.is_clean


def test_arrived_refused_or_held_is_not_lost() -> None:
    assert account_of(arrivals(2.0)).lost == []
    assert account_of(Arrivals(refused={A})).total.refused == 1
    for came in (Arrivals(), arrivals(2.0)):
        account = account_of(came, held=frozenset({A}))
        assert (account.total.held, account.total.lost) == (1, 0)


def test_what_was_altered_is_counted_where_it_arrived() -> None:
    came = arrivals(2.0)
    came.altered.append((A, 11.0))
    account = account_of(came, Period("fault", 10.0))
    assert (account.altered, account.total.altered) == ([A], 1)
    assert [line.altered for line in account.lines] == [0, 1]
    assert not account.is_clean


@pytest.mark.parametrize("answered", [True, False])
def test_a_duplicate_needs_a_record_of_an_unknown_outcome(answered: bool) -> None:
    """Whatever went on around it, and whether or not the sink's answer left."""
    killed = Period("kill -9 of worker-a", 10.0, 12.0, hides=frozenset({FIRST}))
    came = arrivals(10.5, 40.0, answered=answered)
    assert duplicates(account_of(came, killed)) == (0, 0, 1)
    assert not account_of(came, killed).is_clean
    assert duplicates(account_of(came, killed, unknown=1)) == (1, 0, 0)
    assert account_of(came, killed, unknown=1).is_clean


def test_each_further_copy_needs_a_record_of_its_own() -> None:
    assert duplicates(account_of(arrivals(1.0, 2.0, 3.0))) == (0, 0, 2)
    assert duplicates(account_of(arrivals(1.0, 2.0, 3.0), unknown=1)) == (1, 0, 1)
    assert duplicates(account_of(arrivals(1.0, 2.0, 3.0), unknown=5)) == (2, 0, 0)


@pytest.mark.parametrize(
    ("first_at", "excused"),
    [
        (8.9, False),  # its record was on the disk by then
        (9.1, True),
        (10.5, True),
        (13.9, True),  # written down before the crash, sent over a slow line
        (14.1, False),  # written down after it
    ],
)
def test_a_record_may_go_with_postgres(first_at: float, excused: bool) -> None:
    crash = Period("kill -9 of Postgres", 10.0, 12.0, crashes=True)
    account = account_of(arrivals(first_at, 40.0), crash)
    assert duplicates(account) == ((0, 1, 0) if excused else (0, 0, 1))
    assert ("Postgres died with the record" in account.markdown()) is excused


def test_a_restart_of_postgres_loses_no_record() -> None:
    restart = Period("restart of Postgres", 10.0, 12.0, delays=True)
    assert duplicates(account_of(arrivals(10.5, 40.0), restart)) == (0, 0, 1)


def test_a_copy_without_an_excuse_has_the_record_before_one_that_needs_none() -> None:
    crash = Period("kill -9 of Postgres", 10.0, 12.0, crashes=True)
    assert duplicates(account_of(arrivals(10.5, 30.0, 40.0), crash, unknown=1)) == (1, 1, 0)


def test_a_tenant_that_holds_gets_nothing_twice() -> None:
    """Recorded or not: it should have been held. Its records wait for the disk, so a crash is no excuse."""
    crash = Period("kill -9 of Postgres", 10.0, 12.0, crashes=True)
    assert duplicates(account_of(arrivals(10.5, 40.0), crash, unknown=1, rules=HOLDS)) == (0, 0, 1)


@pytest.mark.parametrize(
    ("by", "answered", "hidden", "first_at", "forgiven"),
    [
        (SECOND, True, SECOND, 10.5, True),  # it died before it recorded
        (SECOND, True, SECOND, 9.5, True),  # as before: it had its answer just before
        (SECOND, False, "", 10.5, True),  # the sink never answered
        (SECOND, True, FIRST, 10.5, False),  # it was the other that died
        (SECOND, True, "", 10.5, False),  # the fault hides nothing
        (SECOND, True, SECOND, 30.0, False),  # long after
        (SECOND, True, SECOND, 5.0, False),  # long before
        (FIRST, True, FIRST, 10.5, False),  # one of this release writes down what it is about to send
        (FIRST, False, "", 10.5, False),
    ],
)
def test_a_worker_of_the_release_before_leaves_no_record(
    by: str, answered: bool, hidden: str, first_at: float, forgiven: bool
) -> None:
    fault = Period("fault", 10.0, 12.0, hides=frozenset({hidden}))
    came = arrivals(first_at, 40.0, answered=answered, by=by)
    assert duplicates(account_of(came, fault, rules=OLD_WORKER)) == ((0, 1, 0) if forgiven else (0, 0, 1))


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
    away = Period("disk full", 10.0, 15.0, delays=delays)
    killed = Period("kill -9 of a worker", killed_at, killed_at + 3, hides=frozenset({SECOND}))
    account = account_of(arrivals(10.5, 40.0, by=SECOND), away, killed, rules=OLD_WORKER)
    assert account.total.unexplained == (0 if forgiven else 1)


def test_the_table_adds_up() -> None:
    account = settle({A: 11.0}, arrivals(11.5), [BEFORE, Period("fault", 10.0, 12.0)], set(), {}, RULES)
    assert "| fault | 1 | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |" in account.markdown()
    assert "| **all** | 1 | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |" in account.markdown()


def test_it_goes_into_its_place_in_a_document(tmp_path: Path) -> None:
    document = tmp_path / "doc.md"
    document.write_text("before\n<!-- soak hold -->\nold\n<!-- end of soak hold -->\nafter\n")
    account = account_of(arrivals(2.0))
    plan = Plan(seed=7, seconds=90, on_unknown=OnUnknown.HOLD)
    for _ in range(2):
        put_into(document, kind(plan), in_words(plan, account))
    written = document.read_text()
    assert written.startswith('before\n<!-- soak hold -->\n\n`make soak ARGS="--minutes 1.5 --per-second 60 --seed 7')
    assert "--on-unknown hold" in written
    assert "It ended well (exit 0)" in written
    assert "old" not in written.replace("hold", "")
    assert written.endswith("\n\n<!-- end of soak hold -->\nafter\n")
    with pytest.raises(ValueError, match="soak cluster"):
        put_into(document, kind(Plan(seed=7, seconds=90, cluster_shards=4)), "")


def test_a_table_with_a_fault_of_ours_says_so() -> None:
    assert "with an error (exit 1)" in in_words(Plan(seed=7, seconds=90), account_of(Arrivals()))


def test_the_sink_sees_what_was_altered() -> None:
    body = b"one\r\n.\r\n..two\r\n\xff\r\n"
    head = b"Subject: x\r\nX-Content-SHA256: " + hashlib.sha256(body).hexdigest().encode() + b"\r\n\r\n"
    assert is_whole(head + body)
    assert is_whole(b"Received: by us\r\n" + head + body)
    assert not is_whole(head + body.replace(b"\xff", b"?"))
    assert not is_whole(head + body.replace(b"..two", b".two"))
    assert not is_whole(head + body + b"\r\n")
    assert not is_whole(b"Subject: x\r\n\r\n" + body)


async def test_what_senders_send_arrives_as_it_was() -> None:
    """Through the sink's own reading, dots and all, and no two bodies alike."""
    bodies = [body_of(number) for number in range(300)]
    assert {len(body) > 256 * 1024 for body in bodies} == {True, False}
    assert b"" in bodies
    assert any(b"\r\n.\r\n" in body for body in bodies)
    sink = Sink(Arrivals(), random.Random(1))
    for body in bodies[:60]:
        reader = asyncio.StreamReader(limit=2**20)
        reader.feed_data(stuffed(body) + b".\r\n")
        assert await sink._data(reader) == body


def test_the_ledger_is_in_its_file_before_the_sender_goes_on(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.acknowledge("<a@x>", ["a@x", "b@x"], "250 2.0.0 queued as 1")
    assert "b@x" in (tmp_path / "ledger").read_text()
    assert set(ledger.acknowledged) == {A, ("<a@x>", "b@x")}
    ledger.close()


def test_a_seed_gives_an_order_and_every_family_comes_early() -> None:
    faults = [Fault(f"{f}: {n}", _nothing, _nothing, (0, 0)) for f in "abc" for n in range(5)]
    first = [fault.name for fault in order(faults, random.Random(7))]
    assert first == [fault.name for fault in order(faults, random.Random(7))]
    assert {name[0] for name in first[:3]} == {"a", "b", "c"}
