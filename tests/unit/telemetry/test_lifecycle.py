"""Close, drain, leave."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

import pytest

from smtp_proxy.errors import ServiceFailed
from smtp_proxy.telemetry.lifecycle import Lifecycle, Stage


async def test_the_three_words_in_order() -> None:
    lifecycle = Lifecycle(5)
    said: list[str] = []

    async def close_later() -> None:
        said.append(f"later {lifecycle.stage.value}")

    lifecycle.on_close("listeners", lambda: said.append(f"listeners {lifecycle.stage.value}"))
    lifecycle.on_close("later", close_later)
    with lifecycle.hold("session"):
        running = asyncio.create_task(lifecycle.run_until_stopped())
        await asyncio.sleep(0)
        assert (lifecycle.ready, said) == (True, [])
        lifecycle.stop("test")
        assert not lifecycle.ready
        await asyncio.sleep(0.01)
        assert said == ["listeners closed", "later closed"]
        assert not running.done()
        assert lifecycle.waiting_for() == {"session": 1}
    assert await running is True
    assert lifecycle.stage is Stage.DRAINED


async def test_what_does_not_end_is_left_behind_and_named(caplog: pytest.LogCaptureFixture) -> None:
    lifecycle = Lifecycle(0.05)
    lifecycle.stop("test")
    with caplog.at_level(logging.INFO), lifecycle.hold("commit"), lifecycle.hold("session"), lifecycle.hold("session"):
        assert await lifecycle.run_until_stopped() is False
    assert "waiting for commit, 2 session" in caplog.text
    assert "leaving behind commit, 2 session" in caplog.text


async def test_a_closer_that_fails_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    lifecycle = Lifecycle(1)
    said: list[str] = []

    def broken() -> None:
        raise ValueError("broken")

    lifecycle.on_close("first", broken)
    lifecycle.on_close("second", lambda: said.append("second"))
    lifecycle.stop("test")
    assert await lifecycle.run_until_stopped()
    assert said == ["second"]
    assert "closing first failed" in caplog.text


async def test_a_part_that_fails_stops_the_service_with_its_error() -> None:
    lifecycle = Lifecycle(1, delay_seconds=60)

    async def part() -> None:
        raise ServiceFailed("the part ended")

    lifecycle.watch(asyncio.create_task(part()))
    with pytest.raises(ServiceFailed, match="the part ended"):
        await lifecycle.run_until_stopped()


async def test_a_part_that_is_cancelled_or_ends_well_does_not() -> None:
    lifecycle = Lifecycle(1)
    well, cancelled = asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(asyncio.sleep(60))
    lifecycle.watch(well)
    lifecycle.watch(cancelled)
    cancelled.cancel()
    await asyncio.gather(well, cancelled, return_exceptions=True)
    assert not lifecycle.stopping


async def test_readiness_goes_first_and_the_balancer_gets_its_time() -> None:
    lifecycle = Lifecycle(1, delay_seconds=0.1)
    closed: list[float] = []
    loop = asyncio.get_running_loop()
    lifecycle.on_close("listeners", lambda: closed.append(loop.time()))
    began = loop.time()
    lifecycle.stop("test")
    assert lifecycle.stage is Stage.STOPPING
    await lifecycle.run_until_stopped()
    assert closed[0] - began >= 0.1


async def test_signals() -> None:
    lifecycle = Lifecycle(60, delay_seconds=60)
    lifecycle.install_signals()
    with lifecycle.hold("session"):
        running = asyncio.create_task(lifecycle.run_until_stopped())
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(lifecycle.stopped(), 5)
        assert not running.done()
        os.kill(os.getpid(), signal.SIGINT)
        assert await asyncio.wait_for(running, 5) is False
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)


async def test_stopped_twice_is_stopped_once(caplog: pytest.LogCaptureFixture) -> None:
    lifecycle = Lifecycle(1)
    with caplog.at_level(logging.INFO):
        lifecycle.stop("first")
        lifecycle.stop("second")
    assert "first" in caplog.text
    assert "second" not in caplog.text
