"""Who may come in: the gravest reason, the store's failure and return, and a depth with two marks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from ingress_fakes import FakeDepth, FakeGate, FakeSleep, FakeStore, settle, unavailable

from smtp_proxy.clock import ManualClock
from smtp_proxy.core import Gate
from smtp_proxy.errors import StoreMisconfigured, StreamUnavailable
from smtp_proxy.ingress import pressure
from smtp_proxy.ingress.pressure import DepthWatch, Gatekeeper, StoreWatch
from smtp_proxy.telemetry.metrics import REGISTRY

HIGH, LOW = 10, 4


@pytest.fixture
def gate() -> FakeGate:
    return FakeGate()


@pytest.fixture
def gatekeeper(gate: FakeGate) -> Gatekeeper:
    return Gatekeeper(gate)


class TestGatekeeper:
    def test_the_gravest_reason_is_told(self, gate: FakeGate, gatekeeper: Gatekeeper) -> None:
        gatekeeper.close("busy")
        gatekeeper.close("store_down")
        gatekeeper.close("draining")
        gatekeeper.lift("draining")
        gatekeeper.lift("store_down")
        gatekeeper.lift("busy")
        assert gate.told == ["busy", "store_down", "draining", "store_down", "busy", "open"]
        assert gatekeeper.gate == "open"

    def test_a_lesser_reason_changes_nothing(self, gate: FakeGate, gatekeeper: Gatekeeper) -> None:
        gatekeeper.close("store_down")
        gatekeeper.close("busy")
        gatekeeper.lift("busy")
        assert gate.told == ["store_down"]

    def test_one_reason_gone_is_not_all_gone(self, gate: FakeGate, gatekeeper: Gatekeeper) -> None:
        gatekeeper.close("busy")
        gatekeeper.close("store_down")
        gatekeeper.lift("busy")
        assert gatekeeper.gate == "store_down"
        gatekeeper.lift("store_down")
        assert gate.told == ["busy", "store_down", "open"]

    def test_the_core_is_told_changes_only(
        self, gate: FakeGate, gatekeeper: Gatekeeper, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        gatekeeper.lift("busy")
        for _ in range(3):
            gatekeeper.close("busy")
        for _ in range(3):
            gatekeeper.lift("busy")
        assert gate.told == ["busy", "open"]
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]

    @pytest.mark.parametrize("reason", ["busy", "store_down", "draining"])
    def test_each_reason_has_its_gauge(self, gatekeeper: Gatekeeper, reason: Gate) -> None:
        def closed() -> float | None:
            return REGISTRY.get_sample_value("smtp_gate_closed", {"reason": reason})

        gatekeeper.close(reason)
        assert closed() == 1
        gatekeeper.lift(reason)
        assert closed() == 0


class TestStoreWatch:
    async def test_a_failure_closes_the_gate_once(
        self, gate: FakeGate, gatekeeper: Gatekeeper, caplog: pytest.LogCaptureFixture
    ) -> None:
        watch = StoreWatch(FakeStore(), gatekeeper)
        assert not watch.is_down
        for _ in range(3):
            watch.failed(unavailable())
        assert (watch.is_down, gate.told) == (True, ["store_down"])
        assert len(caplog.messages) == 2  # What happened, and what became of the gate.

    async def test_it_asks_ever_less_often_until_the_store_answers(
        self, gate: FakeGate, gatekeeper: Gatekeeper
    ) -> None:
        store = FakeStore()
        store.error = unavailable()

        def come_back(slept: int) -> None:
            if slept == 7:
                store.error = None

        sleep = FakeSleep(come_back)
        watch = StoreWatch(store, gatekeeper, sleep=sleep)
        async with running(watch):
            await settle()
            assert sleep.slept == [], "a store that works is left in peace"
            watch.failed(unavailable())
            await settle(50)
            assert sleep.slept == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])
            assert (watch.is_down, gate.told) == (False, ["store_down", "open"])
            watch.succeeded()
            watch.failed(unavailable())
            await settle()
            assert sleep.slept[7:] == [0.1]
            assert gate.told == ["store_down", "open", "store_down", "open"]

    async def test_the_gate_stays_shut_while_the_store_is_away(self, gate: FakeGate, gatekeeper: Gatekeeper) -> None:
        store = FakeStore()
        store.error = StoreMisconfigured()
        watch = StoreWatch(store, gatekeeper, sleep=FakeSleep())
        async with running(watch):
            watch.failed(unavailable())
            await settle(100)
            assert (watch.is_down, gate.told) == (True, ["store_down"])
            store.error = None
            await settle()
            assert not watch.is_down

    async def test_without_mail_it_asks_by_itself(
        self, gate: FakeGate, gatekeeper: Gatekeeper, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Load balancers keep who has Postgres away, so StoreDown has to say it at night as well."""
        monkeypatch.setattr(pressure, "_QUIET_SECONDS", 0)
        store, slept = FakeStore(), FakeSleep()
        async with running(StoreWatch(store, gatekeeper, sleep=slept)):
            await settle(20)
            assert (store.pings > 1, gate.told) == (True, [])
            store.error = unavailable()
            await settle(50)
            assert REGISTRY.get_sample_value("smtp_gate_closed", {"reason": "store_down"}) == 1
            store.error = None
            await settle(50)
        assert gate.told == ["store_down", "open"]

    async def test_a_store_that_stands_still_is_not_waited_for(
        self, gatekeeper: Gatekeeper, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pressure, "_PROBE_PATIENCE_SECONDS", 0)
        asked: list[asyncio.Event] = []

        class StandsStill(FakeStore):
            async def probe_commit(self) -> None:
                asked.append(asyncio.Event())
                if len(asked) < 3:
                    await asked[-1].wait()

        watch = StoreWatch(StandsStill(), gatekeeper, sleep=FakeSleep())
        async with running(watch):
            watch.failed(unavailable())
            await settle(50)
            assert (len(asked), watch.is_down) == (3, False)

    async def test_a_store_that_fails_again_and_again_is_shut_out_for_longer(
        self, gate: FakeGate, gatekeeper: Gatekeeper
    ) -> None:
        """The probe succeeds and mail fails all the same: the gate must not flap."""
        sleep = FakeSleep()
        watch = StoreWatch(FakeStore(), gatekeeper, clock=ManualClock(), sleep=sleep)
        async with running(watch):
            for _ in range(11):
                watch.failed(unavailable())
                await settle()
                assert not watch.is_down
        assert sleep.slept == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30])
        assert gate.told == ["store_down", "open"] * 11

    async def test_once_it_does_not_even_pass_the_probe_it_is_asked_every_second(self, gatekeeper: Gatekeeper) -> None:
        store = FakeStore()

        def change(slept: int) -> None:
            store.error = unavailable() if 6 <= slept < 9 else None

        sleep = FakeSleep(change)
        watch = StoreWatch(store, gatekeeper, clock=ManualClock(), sleep=sleep)
        async with running(watch):
            for _ in range(6):
                watch.failed(unavailable())
                await settle(20)
        assert sleep.slept[5:] == pytest.approx([3.2, 1, 1, 1])

    @pytest.mark.parametrize(("quiet_seconds", "shut_seconds"), [(59.9, 0.4), (60, 0.1), (3600, 0.1)])
    async def test_after_a_quiet_time_a_failure_is_a_new_trouble(
        self, gatekeeper: Gatekeeper, quiet_seconds: float, shut_seconds: float
    ) -> None:
        clock, sleep = ManualClock(), FakeSleep()
        watch = StoreWatch(FakeStore(), gatekeeper, clock=clock, sleep=sleep)
        async with running(watch):
            for pause in (0, 0, quiet_seconds):
                clock.advance(pause)
                watch.failed(unavailable())
                await settle()
        assert sleep.slept == [0.1, 0.2, shut_seconds]

    async def test_after_a_commit_a_failure_is_a_new_trouble(self, gatekeeper: Gatekeeper) -> None:
        sleep = FakeSleep()
        watch = StoreWatch(FakeStore(), gatekeeper, clock=ManualClock(), sleep=sleep)
        async with running(watch):
            for _ in range(3):
                watch.failed(unavailable())
                await settle()
            watch.succeeded()
            for _ in range(2):
                watch.failed(unavailable())
                await settle()
        assert sleep.slept == [0.1, 0.2, 0.4, 0.1, 0.2]


class TestDepthWatch:
    @pytest.mark.parametrize(
        ("depths", "gates"),
        [
            ([0, HIGH], ["open", "open"]),
            ([HIGH + 1], ["busy"]),
            ([HIGH + 1, HIGH, LOW + 1, LOW], ["busy", "busy", "busy", "open"]),
            ([HIGH + 1, LOW + 1, HIGH + 1, 0, LOW + 1, HIGH], ["busy", "busy", "busy", "open", "open", "open"]),
        ],
    )
    async def test_the_two_marks(
        self, gate: FakeGate, gatekeeper: Gatekeeper, depths: list[int], gates: list[Gate]
    ) -> None:
        stream = FakeDepth()
        watch = DepthWatch(stream, FakeDepth(), gatekeeper, high=HIGH, low=LOW)
        seen: list[Gate] = []
        for stream.answer in depths:
            assert await watch.look() == 1.0
            seen.append(gatekeeper.gate)
            assert REGISTRY.get_sample_value("smtp_queue_depth") == stream.answer
        assert seen == gates
        assert len(gate.told) == sum(now != then for then, now in zip(["open", *gates], gates, strict=False))

    async def test_without_the_stream_the_store_is_asked_less_often(self, gatekeeper: Gatekeeper) -> None:
        stream, store = FakeDepth(0), FakeDepth(HIGH + 1)
        watch = DepthWatch(stream, store, gatekeeper, high=HIGH, low=LOW)
        assert await watch.look() == 1.0
        assert store.asked == 0
        stream.answer = StreamUnavailable()
        assert await watch.look() == 5.0
        assert gatekeeper.gate == "busy"

    @pytest.mark.parametrize("before", [0, HIGH + 1])
    async def test_when_neither_can_tell_all_stays_as_it_is(self, gatekeeper: Gatekeeper, before: int) -> None:
        stream, store = FakeDepth(before), FakeDepth(unavailable())
        watch = DepthWatch(stream, store, gatekeeper, high=HIGH, low=LOW)
        await watch.look()
        gate = gatekeeper.gate
        stream.answer = StreamUnavailable()
        assert await watch.look() == 1.0
        assert gatekeeper.gate == gate == ("busy" if before else "open")

    async def test_a_deep_queue_does_not_open_a_gate_that_others_keep_shut(self, gatekeeper: Gatekeeper) -> None:
        gatekeeper.close("store_down")
        await DepthWatch(FakeDepth(0), FakeDepth(), gatekeeper, high=HIGH, low=LOW).look()
        assert gatekeeper.gate == "store_down"

    async def test_it_looks_again_after_the_pause_that_the_source_is_worth(self, gatekeeper: Gatekeeper) -> None:
        stream = FakeDepth(0)

        def change(slept: int) -> None:
            stream.answer = StreamUnavailable() if slept == 2 else 0

        sleep = FakeSleep(change)
        async with running(DepthWatch(stream, FakeDepth(0), gatekeeper, high=HIGH, low=LOW, sleep=sleep)):
            while len(sleep.slept) < 4:
                await asyncio.sleep(0)
        assert sleep.slept[:4] == [1.0, 1.0, 5.0, 1.0]


@contextlib.asynccontextmanager
async def running(watch: StoreWatch | DepthWatch) -> AsyncIterator[None]:
    task = asyncio.create_task(watch.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
