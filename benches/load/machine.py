"""Where and when figures were seen: they mean nothing without it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

METHOD = (
    "all servers run side by side and idle while another is measured; rounds interleaved, every row once a round, "
    "every second round in reverse order; queue emptied, checkpoint and sync before each run; "
    "each run warms up for 1 s; medians over rounds, "
    "ratios within a round first; load generator on the same machine, one thread, no pipelining; "
    "messages of random base64, one recipient; CPU by /proc of whole process trees, ended children included; "
    "accepting only: no delivery while accepts are measured, on either side"
)


def describe(versions: dict[str, str], folder: Path) -> dict[str, Any]:
    """What opens every result."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "os": _os(),
        "kernel": platform.release(),
        "load_average_before": os.getloadavg()[0],
        "fdatasyncs_per_second": _fdatasyncs_per_second(folder),
        "python_calls_per_cpu_second": _python_calls_per_cpu_second(),
        "versions": {"python": sys.version.split()[0], "rustc": _said("rustc", "--version"), **versions},
        "method": METHOD,
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _os() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _fdatasyncs_per_second(folder: Path, seconds: float = 1.0) -> int:
    """How often this disk makes 8 KiB durable: what every durable accept is bounded by."""
    count, end = 0, time.monotonic() + seconds
    with tempfile.TemporaryFile(dir=folder) as file:
        while time.monotonic() < end:
            os.pwrite(file.fileno(), bytes(8192), 0)
            os.fdatasync(file.fileno())
            count += 1
    return round(count / seconds)


class _Called:
    __slots__ = ("at",)

    def __init__(self, at: int) -> None:
        self.at = at

    def plus(self, amount: int) -> int:
        return self.at + amount


def _python_calls_per_cpu_second(seconds: float = 0.5) -> int:
    """How fast this interpreter calls methods of its own: half of what delivery costs is Python's.

    Two builds of one version differ: without profile-guided optimisation, as pyenv builds by default, one is slower.
    """
    called, count = _Called(1), 0
    end = time.process_time() + seconds
    while time.process_time() < end:
        for amount in range(1000):
            called.plus(amount)
        count += 1000
    return round(count / seconds)
