"""What tests time by does not count that the machine stood still, and does count that our own work took long."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from stopwatch import Stopwatch

TIMED = """
import sys
from stopwatch import Stopwatch
with Stopwatch() as watch:
    print("began", flush=True)
    sys.stdin.readline()
print(watch.seconds, watch.stood_seconds)
"""


def timed() -> subprocess.Popen[str]:
    """A process that times how long it waits for a line."""
    path = str(Path(__file__).parent.parent)
    process = subprocess.Popen(
        [sys.executable, "-c", TIMED],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "began\n"
    return process


def test_what_the_process_stood_is_not_counted() -> None:
    """Stopped by a signal, it is kept from the CPU as it is on a machine that has other work."""
    with timed() as process:
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        time.sleep(4)
        stood = time.monotonic() - began
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate("go on\n")
    seconds, noticed = map(float, said.split())
    assert seconds < 3
    assert noticed > stood - 1


def test_what_it_waited_for_is() -> None:
    """Tried up to five times: what it waited while the machine stood still can not be told from that."""
    waits = []
    while len(waits) < 5 and not (waits and max(waits) > 0.25):
        with timed() as process:
            time.sleep(0.3)
            said, _ = process.communicate("go on\n")
        waits.append(float(said.split()[0]))
    assert max(waits) > 0.25


def _let_others_in() -> None:
    for n in range(1000):
        n * n


def _let_nobody_in() -> None:
    re.match(r"(a+)+$", "a" * 18 + "b")


@pytest.mark.parametrize("work", [_let_others_in, _let_nobody_in])
def test_what_it_computed_is(work: Callable[[], None]) -> None:
    began = time.process_time()
    with Stopwatch() as watch:
        while time.process_time() - began < 0.5:
            work()
    assert watch.seconds > 0.4


def test_one_call_that_lets_no_other_thread_in_is() -> None:
    began = time.process_time()
    with Stopwatch() as watch:
        re.match(r"(a+)+$", "a" * 24 + "b")
    assert watch.seconds > 0.8 * (time.process_time() - began)
