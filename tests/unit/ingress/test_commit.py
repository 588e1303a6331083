"""Group commit: 250 after the commit and never before, and one bad message on its own."""

from __future__ import annotations

import asyncio
import itertools
import logging
import operator
from collections.abc import AsyncIterator, Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingress_fakes import Arriving, FakeBatch, FakeGate, FakePublisher, FakeStore, settle, unavailable
from mail import core_envelope

from smtp_proxy.core import ID, Outline
from smtp_proxy.errors import StoreError
from smtp_proxy.ingress.announce import Announcer
from smtp_proxy.ingress.commit import Committer, Discarder, Turns
from smtp_proxy.ingress.ports import Judge
from smtp_proxy.ingress.pressure import Gatekeeper, StoreWatch
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.limits import Placement
from smtp_proxy.telemetry.metrics import REGISTRY
from smtp_proxy.tenants.limits import Rulings

NEVER_SECONDS = 3600.0


class House:
    """A committer and what is around it; `log` is the order in which things happened."""

    def __init__(self, overlap_seconds: float = NEVER_SECONDS) -> None:
        self.log: list[str] = []
        self.source: Arriving[FakeBatch] = Arriving()
        self.store = FakeStore(self.log)
        self.publisher = FakePublisher(self.log)
        self.announcer = Announcer(self.publisher, gather_seconds=0)
        self.gate = FakeGate()
        self.watch = StoreWatch(self.store, Gatekeeper(self.gate))
        self.turns = Turns(overlap_seconds)
        self.committer = self.another()
        self.tasks: list[asyncio.Task[None]] = []

    def another(self, limits: Judge | None = None) -> Committer:
        """One more committer of the same service."""
        return Committer(
            self.source,
            self.store,
            self.announcer,
            self.watch,
            sweep_after_seconds=7.0,
            turns=self.turns,
            limits=limits,
        )

    def batch(self, count: int = 1) -> FakeBatch:
        return FakeBatch([core_envelope() for _ in range(count)], self.log)

    def arrive(self, count: int = 1) -> FakeBatch:
        batch = self.batch(count)
        self.source.arrive(batch)
        return batch

    def start(self, committers: int = 1) -> None:
        takers = [self.committer, *(self.another() for _ in range(committers - 1))]
        self.tasks = [asyncio.create_task(part.run()) for part in (self.announcer, *takers)]

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def announced(self) -> list[bytes]:
        return [envelope_id.bytes for call in self.publisher.calls for envelope_id in call]


@pytest.fixture
async def house() -> AsyncIterator[House]:
    made = House()
    yield made
    await made.end()


def ids(batch: FakeBatch) -> list[bytes]:
    return [row[ID] for row in batch.rows]


async def test_nobody_hears_250_before_the_commit(house: House) -> None:
    house.store.open.clear()
    house.start()
    batch = house.arrive(3)
    await settle()
    assert (house.store.calls, batch.told, house.publisher.calls) == ([3], None, [])
    house.store.open.set()
    await settle()
    assert batch.told == [250, 250, 250]
    assert house.log == ["stored", "answered", "published"]
    assert house.announced() == house.store.stored == ids(batch)
    assert house.store.sweep_after_seconds == {7.0}


async def test_250_does_not_wait_for_the_stream(house: House) -> None:
    house.publisher.open.clear()
    house.start()
    batches = [house.arrive(2) for _ in range(5)]
    await settle(50)
    assert [batch.told for batch in batches] == [[250, 250]] * 5
    assert "published" not in house.log


async def test_what_cannot_be_stored_is_not_acknowledged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.store.error = unavailable()
    house.start()
    batches = [house.arrive(3), house.arrive(2)]
    await settle()
    assert [batch.told for batch in batches] == [[451] * 3, [451] * 2]
    assert (house.announced(), house.store.stored) == ([], [])
    assert house.watch.is_down
    assert house.gate.told == ["store_down"]
    assert caplog.text.count("mail can not be stored") == 1


async def test_a_store_known_to_be_down_is_not_asked(house: House) -> None:
    house.watch.failed(unavailable())
    batch = house.batch(4)
    await house.committer.commit(batch)
    assert (batch.told, house.store.calls) == ([451] * 4, [])


@pytest.mark.parametrize(("refused", "told"), [(0, 1), (1, 1), (2, 0)])
async def test_the_watch_is_told_of_what_could_be_stored(
    house: House, monkeypatch: pytest.MonkeyPatch, refused: int, told: int
) -> None:
    tells: list[bool] = []
    monkeypatch.setattr(house.watch, "succeeded", lambda: tells.append(True))
    batch = house.batch(2)
    house.store.refused = set(ids(batch)[:refused])
    await house.committer.commit(batch)
    assert len(tells) == told


@pytest.mark.parametrize("count", [1, 2, 7])
async def test_one_bad_message_is_answered_by_itself(
    house: House, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    for culprit in range(count):
        batch = house.batch(count)
        house.store.refused = {ids(batch)[culprit]}
        caplog.clear()
        await house.committer.commit(batch)
        others = [n for n in range(count) if n != culprit]
        assert batch.told == [451 if n == culprit else 250 for n in range(count)]
        assert house.store.stored[len(house.store.stored) - len(others) :] == [ids(batch)[n] for n in others]
        (record,) = caplog.records
        assert (record.levelno, vars(record)["envelope_id"]) == (logging.ERROR, ids(batch)[culprit].hex())
    assert not house.watch.is_down
    assert house.gate.told == []


async def test_each_lane_is_announced_by_itself(house: House) -> None:
    house.start()
    rows = [core_envelope(lane=lane) for lane in (1, 0, 1)]
    house.source.arrive(FakeBatch(rows, house.log))
    await settle()
    house.source.arrive(FakeBatch([core_envelope(lane=1)], house.log))
    await settle()
    first, second, third = house.publisher.calls
    assert house.publisher.lanes == [Lane.TRANSACTIONAL, Lane.BULK, Lane.BULK]
    assert [each.bytes for each in first] == [rows[1][ID]]
    assert [each.bytes for each in second] == [rows[0][ID], rows[2][ID]]
    assert len(third) == 1


async def test_bulk_beside_what_can_not_be_stored_is_announced_as_bulk(house: House) -> None:
    house.start()
    rows = [core_envelope(lane=1) for _ in range(4)]
    house.store.refused.add(rows[2][ID])
    house.source.arrive(FakeBatch(rows, house.log))
    await settle()
    assert sorted(house.announced()) == sorted(row[ID] for row in rows if row is not rows[2])
    assert set(house.publisher.lanes) == {Lane.BULK}


async def test_only_what_is_committed_is_announced(house: House) -> None:
    house.start()
    batch = house.batch(5)
    house.store.refused = set(ids(batch)[1:3])
    house.source.arrive(batch)
    await settle()
    assert house.announced() == [ids(batch)[n] for n in (0, 3, 4)]


async def test_the_culprit_is_found_by_halving(house: House) -> None:
    batch = house.batch(256)
    house.store.refused = {ids(batch)[200]}
    await house.committer.commit(batch)
    assert batch.told is not None
    assert batch.told.count(451) == 1
    assert len(house.store.calls) == 1 + 2 * 8


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_whoever_is_bad_the_others_are_stored(good: list[bool]) -> None:
    async def commit() -> tuple[FakeBatch, list[bytes]]:
        house = House()
        batch = house.batch(len(good))
        house.store.refused = set(itertools.compress(ids(batch), map(operator.not_, good)))
        await house.committer.commit(batch)
        return batch, house.store.stored

    batch, stored = asyncio.run(commit())
    assert batch.told == [250 if is_good else 451 for is_good in good]
    assert stored == list(itertools.compress(ids(batch), good))


async def test_the_store_may_go_while_the_culprit_is_sought(house: House) -> None:
    batch = house.batch(4)
    house.store.refused = {ids(batch)[3]}
    house.store.error, house.store.error_from_call = unavailable(), 2  # The whole, its first half, then nothing more.
    await house.committer.commit(batch)
    assert batch.told == [250, 250, 451, 451]
    assert house.store.stored == ids(batch)[:2]
    assert house.watch.is_down


async def test_an_unforeseen_error_defers_and_the_next_batch_is_tried(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.store.error = RuntimeError("a mistake of ours")
    house.start()
    first = house.arrive(2)
    await settle()
    house.store.error = None
    second = house.arrive(2)
    await settle()
    assert (first.told, second.told) == ([451, 451], [250, 250])
    assert "a mistake of ours" in caplog.text
    assert not house.watch.is_down


async def test_a_committer_that_is_ended_leaves_nobody_unanswered(house: House) -> None:
    house.store.open.clear()
    house.start()
    batch = house.arrive(2)
    await settle()
    await house.end()
    assert batch.told == [451, 451]
    assert house.announced() == []


class TestTurns:
    async def test_a_second_commit_waits_while_the_first_is_young(self, house: House) -> None:
        house.store.open.clear()
        house.start(committers=2)
        first, second = house.arrive(1), house.arrive(2)
        await settle()
        assert house.store.calls == [1], "what waits gathers meanwhile"
        house.store.open.set()
        await settle(20)
        assert house.store.calls == [1, 2]
        assert (first.told, second.told) == ([250], [250] * 2)

    async def test_a_slow_commit_does_not_hold_up_everybody(self) -> None:
        house = House(overlap_seconds=0)
        house.store.open.clear()
        house.start(committers=2)
        batches = [house.arrive(n) for n in (1, 2, 3)]
        await settle()
        assert house.store.calls == [1, 2], "as many at once as there are committers"
        house.store.open.set()
        await settle(20)
        assert [batch.told for batch in batches] == [[250], [250] * 2, [250] * 3]
        await house.end()

    @pytest.mark.parametrize("error", [unavailable(), RuntimeError("a mistake of ours")])
    async def test_a_commit_that_fails_gives_its_turn_back(self, house: House, error: Exception) -> None:
        house.store.error = error
        house.start(committers=2)
        batches = [house.arrive() for _ in range(5)]
        await settle(50)
        assert [batch.told for batch in batches] == [[451]] * 5

    async def test_a_committer_that_is_ended_gives_its_turn_back(self, house: House) -> None:
        house.store.open.clear()
        house.start(committers=2)
        first, second = house.arrive(), house.arrive()
        await settle()
        house.tasks[1].cancel()
        await settle()
        assert first.told == [451]
        house.store.open.set()
        await settle(20)
        assert second.told == [250]

    async def test_a_newcomer_does_not_wait_behind_a_wide_batch(self, house: House) -> None:
        house.store.open.clear()
        house.start(committers=2)
        wide = house.arrive(16)
        await settle()
        (asked,) = house.source.new
        newcomer = house.batch(1)
        asked.set_result(newcomer)
        await settle()
        assert house.store.calls == [16, 1], "both at once"
        house.store.open.set()
        await settle(20)
        assert (wide.told, newcomer.told) == ([250] * 16, [250])

    async def test_nor_does_the_next_newcomer(self, house: House) -> None:
        """It did once: the commit of the first one was narrow, and so there was nothing more to be asked for."""
        turns, source = house.turns, house.source
        wide = house.arrive(16)
        assert await turns.take(source) is wide
        for count in (1, 20, 1):
            asked = asyncio.create_task(turns.take(source))
            await settle()
            newcomer = house.batch(count)
            source.new[-1].set_result(newcomer)
            assert await asked is newcomer
            turns.done(newcomer)
        turns.done(wide)
        after = house.arrive(1)
        assert await turns.take(source) is after

    async def test_newcomers_are_not_preferred_to_the_others_for_ever(self, house: House) -> None:
        """Wide as their own batch may be: once the one that they passed has ended, everybody has a turn."""
        turns, source = house.turns, house.source
        wide = house.arrive(16)
        await turns.take(source)
        asked = asyncio.create_task(turns.take(source))
        await settle()
        source.new[-1].set_result(house.batch(16))
        newcomers = await asked
        turns.done(wide)
        asked = asyncio.create_task(turns.take(source))
        await settle()
        assert source.new[-1].done(), "no more are asked for"
        turns.done(newcomers)
        following = house.arrive(1)
        assert await asked is following

    async def test_behind_a_narrow_one_it_does(self, house: House) -> None:
        house.store.open.clear()
        house.start(committers=2)
        house.arrive(15)
        await settle()
        assert house.source.new == []
        assert house.store.calls == [15]

    async def test_who_no_longer_asks_for_newcomers_says_so(self, house: House) -> None:
        """Else the core would hand a batch to nobody."""
        house.store.open.clear()
        house.start(committers=2)
        house.arrive(16)
        await settle()
        house.store.open.set()
        await settle(20)
        assert [asked.cancelled() for asked in house.source.new] == [True]

    async def test_a_newcomer_and_the_end_of_a_commit_at_once(self, house: House) -> None:
        house.store.open.clear()
        house.start(committers=2)
        house.arrive(16)
        await settle()
        newcomer = house.batch(2)
        house.source.new[0].set_result(newcomer)
        house.store.open.set()
        await settle(20)
        assert newcomer.told == [250, 250]

    async def test_an_idle_service_does_not_make_anybody_wait(self, house: House) -> None:
        house.start(committers=2)
        for _ in range(3):
            batch = house.arrive()
            await settle()
            assert batch.told == [250]


class Ruling:
    """Says of a batch what it was told to say."""

    def __init__(self, rulings: Rulings) -> None:
        self.rulings = rulings

    def concerns(self, tenant_ids: Sequence[bytes]) -> bool:
        return True

    async def judge(self, outlines: Sequence[Outline]) -> Rulings | None:
        return self.rulings


class FailingJudge(Ruling):
    """Its Redis is away in a way that nobody foresaw."""

    async def judge(self, outlines: Sequence[Outline]) -> Rulings | None:
        raise RuntimeError("a mistake of ours")


class TestLimits:
    async def test_over_the_rate_is_neither_stored_nor_put_off_as_by_an_outage(self, house: House) -> None:
        batch = house.batch(4)
        rulings = Rulings(refused={ids(batch)[n] for n in (0, 2)})
        before = counted(["smtp_envelopes_deferred_total"])
        await house.another(Ruling(rulings)).commit(batch)
        assert batch.told == [450, 250, 450, 250]
        assert house.store.stored == [ids(batch)[1], ids(batch)[3]]
        assert counted(["smtp_envelopes_deferred_total"]) == before

    async def test_all_of_it_is_over_the_rate(self, house: House) -> None:
        batch = house.batch(2)
        await house.another(Ruling(Rulings(refused=set(ids(batch))))).commit(batch)
        assert (batch.told, house.store.calls) == ([450, 450], [])

    async def test_what_is_held_or_put_off_is_stored_and_not_announced(self, house: House) -> None:
        house.start()
        batch = house.batch(4)
        placements = {ids(batch)[0]: Placement(held=True), ids(batch)[3]: Placement(delay_seconds=60)}
        await house.another(Ruling(Rulings(placements=placements))).commit(batch)
        await settle()
        assert batch.told == [250] * 4
        assert house.store.placements == placements
        assert house.announced() == ids(batch)[1:3]

    async def test_one_that_the_store_refuses_among_them(self, house: House) -> None:
        batch = house.batch(5)
        house.store.refused = {ids(batch)[3]}
        placements = {ids(batch)[4]: Placement(held=True)}
        await house.another(Ruling(Rulings({ids(batch)[1]}, placements))).commit(batch)
        assert batch.told == [250, 450, 250, 451, 250]
        assert house.store.placements == placements

    async def test_what_they_let_through_stays_as_the_core_encodes_it(self, house: House) -> None:
        """One message over its rate does not make a whole batch take the slow way."""
        batch = house.batch(40)
        own = ids(batch)
        rulings = Rulings({own[3]}, {own[7]: Placement(held=True), own[9]: Placement(delay_seconds=60)})
        await house.another(Ruling(rulings)).commit(batch)
        assert house.store.encoded == [[each for n, each in enumerate(own) if n not in {3, 7, 9}]]
        assert house.store.stored == [*house.store.encoded[0], own[7], own[9]]
        assert batch.told == [450 if n == 3 else 250 for n in range(40)]

    @pytest.mark.parametrize("judge", [Ruling(Rulings()), FailingJudge(Rulings())])
    async def test_nothing_to_be_said_of_a_limited_tenant(self, house: House, judge: Judge) -> None:
        batch = house.batch(5)
        await house.another(judge).commit(batch)
        assert (house.store.encoded, batch.told) == ([ids(batch)], [250] * 5)

    async def test_all_of_it_is_held(self, house: House) -> None:
        batch = house.batch(2)
        await house.another(Ruling(Rulings(placements=dict.fromkeys(ids(batch), Placement(held=True))))).commit(batch)
        assert (house.store.encoded, house.store.stored, batch.told) == ([], ids(batch), [250] * 2)

    async def test_a_store_that_goes_away_between_the_two(self, house: House) -> None:
        batch = house.batch(3)
        house.store.error, house.store.error_from_call = unavailable(), 1
        await house.another(Ruling(Rulings(placements={ids(batch)[0]: Placement(held=True)}))).commit(batch)
        assert batch.told == [451, 250, 250]

    async def test_a_committer_that_is_ended_leaves_nobody_of_either_part(self, house: House) -> None:
        house.store.open.clear()
        batch = house.batch(3)
        house.source.arrive(batch)
        ruled = house.another(Ruling(Rulings({ids(batch)[0]}, {ids(batch)[1]: Placement(held=True)})))
        house.tasks = [asyncio.create_task(ruled.run())]
        await settle()
        assert batch.told == [450, None, None], "who is refused waits for no commit"
        await house.end()
        assert batch.told == [450, 451, 451]


async def test_what_is_counted(house: House) -> None:
    names = ("smtp_envelopes_accepted_total", "smtp_envelopes_deferred_total", "smtp_accepted_bytes_total")
    before = counted(names)
    batch = house.batch(3)
    house.store.refused = {ids(batch)[0]}
    await house.committer.commit(batch)
    house.watch.failed(StoreError("away"))
    await house.committer.commit(house.batch(2))
    accepted, deferred, size = (now - then for now, then in zip(counted(names), before, strict=True))
    assert (accepted, deferred, size) == (2, 3, sum(len(row[5]) for row in batch.rows[1:]))


async def test_the_benchmarks_discarder_keeps_nothing_and_lets_others_run() -> None:
    batches = [FakeBatch([core_envelope()]) for _ in range(3)]
    discarding = asyncio.create_task(Discarder(Arriving(*batches)).run())
    await asyncio.sleep(0)
    assert [batch.told for batch in batches] == [[250], None, None]
    await settle()
    assert [batch.told for batch in batches] == [[250]] * 3
    discarding.cancel()


def counted(names: Iterable[str]) -> list[float]:
    return [REGISTRY.get_sample_value(name) or 0.0 for name in names]
