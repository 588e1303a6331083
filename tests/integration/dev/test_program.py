"""Programs beside us: started again when they end, given up when hopeless, ended when told to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from smtp_proxy.dev.program import Program, Running, describe
from smtp_proxy.errors import ConfigurationError, ServiceFailed

FOREVER = "import time; print('up', flush=True); time.sleep(100)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + FOREVER


def python(code: str, said: list[str], **options: Any) -> Program:
    async def probe() -> str | None:
        return None if "up" in said else "not up yet"

    return Program("it", [sys.executable, "-c", code], probe, said.append, **{"stop_seconds": 5.0, **options})


@asynccontextmanager
async def running(program: Program, changed: Callable[[], None] = lambda: None) -> AsyncIterator[Running]:
    it = Running(program, changed, first_pause_seconds=0.01)
    life = asyncio.create_task(it.run())
    try:
        await it.ready()
        yield it
    finally:
        await it.stop(asyncio.Event())
        with contextlib.suppress(ServiceFailed):
            await life
    assert it.pid is None


async def test_it_is_started_again_when_it_ends() -> None:
    said: list[str] = []
    changes: list[int] = []
    async with running(python(FOREVER, said), lambda: changes.append(1)) as it:
        first = it.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        while said.count("up") < 2:
            await asyncio.sleep(0.02)
        assert it.pid not in (None, first)
    assert len(changes) == 4  # started, ended, started, ended


async def test_one_that_does_not_end_is_killed() -> None:
    async with running(python(STUBBORN, [], stop_seconds=0.2)) as it:
        await it.stop(asyncio.Event())
        assert it.pid is None


@pytest.mark.parametrize("last", [signal.SIGKILL, signal.SIGQUIT])
async def test_in_a_hurry_nobody_waits(last: signal.Signals) -> None:
    async with running(python(STUBBORN, [], stop_seconds=60, hurry_signal=last)) as it:
        hurry = asyncio.Event()
        hurry.set()
        async with asyncio.timeout(5):
            await it.stop(hurry)
        assert it.pid is None


async def test_stopped_while_it_is_being_made_it_ends_all_the_same() -> None:
    it = Running(python(FOREVER, []), lambda: None)
    life = asyncio.create_task(it.run())
    await asyncio.sleep(0)  # it stands in the middle of making the process
    async with asyncio.timeout(5):
        await it.stop(asyncio.Event())
        await life
    assert it.pid is None


@pytest.mark.parametrize(("code", "ours", "tries"), [(2, True, 1), (1, True, 5), (2, False, 5)])
async def test_one_that_never_gets_ready_is_given_up(code: int, ours: bool, tries: int) -> None:
    said: list[str] = []
    program = python(f"print('trying'); raise SystemExit({code})", said, ours=ours)
    it = Running(program, lambda: None, first_pause_seconds=0.01)
    with pytest.raises(ServiceFailed, match=rf"it could not be started \(exit code {code}\)"):
        await it.run()
    assert said == ["trying"] * tries


async def test_a_program_that_is_not_there_is_named() -> None:
    async def probe() -> str | None:
        return None

    it = Running(Program("it", ["/nonexistent/program"], probe, print), lambda: None)
    with pytest.raises(ConfigurationError, match="it: can not start /nonexistent/program"):
        await it.run()


async def test_a_line_of_any_length_and_kind_does_no_harm() -> None:
    said: list[str] = []
    code = "import sys; sys.stdout.buffer.write(b'x' * 3_000_000 + b'\\n\\xff\\xfe\\nup\\n'); " + FOREVER
    async with running(python(code, said)):
        assert "up" in said


def test_ends_are_told_in_words() -> None:
    assert [describe(code) for code in (0, 1, -9, -70)] == [
        "exit code 0", "exit code 1", "killed by SIGKILL", "killed by signal 70",
    ]  # fmt: skip
