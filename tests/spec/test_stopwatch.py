"""What tests time by does not count that the machine stood still, and does count that our own work took long."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stopwatch import Stopwatch

TIMED = """
import sys, time
from stopwatch import Stopwatch
with Stopwatch() as watch:
    print("began", flush=True)
    time.sleep(0.5)
print(watch.seconds, watch.stood_seconds)
"""


def test_what_the_process_stood_is_not_counted() -> None:
    """Stopped by a signal, it is kept from the CPU as it is on a machine that has other work."""
    path = str(Path(__file__).parent.parent)
    with subprocess.Popen(
        [sys.executable, "-c", TIMED], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    ) as timed:
        assert timed.stdout is not None
        assert timed.stdout.readline() == "began\n"
        began = time.monotonic()
        timed.send_signal(signal.SIGSTOP)
        time.sleep(3)
        timed.send_signal(signal.SIGCONT)
        stood = time.monotonic() - began
        seconds, noticed = map(float, timed.stdout.read().split())
    assert seconds < 2
    assert noticed > stood - 1


@pytest.mark.parametrize("working", [False, True])
async def test_what_takes_long_is(working: bool) -> None:
    with Stopwatch() as watch:
        until = time.monotonic() + 0.3
        while working and time.monotonic() < until:
            pass
        await asyncio.sleep(0 if working else 0.3)
    assert watch.seconds + watch.stood_seconds >= 0.3
    assert watch.stood_seconds < 0.3
