"""Resident memory of processes. Linux only (/proc).

What the kernel keeps for a socket is no process's memory, so it is not in these figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_RESIDENT = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def used_bytes(pids: Iterable[int]) -> int:
    """Proportional set size: pages that processes share count once."""
    return sum(_read(Path(f"/proc/{pid}/smaps_rollup"), _RESIDENT) for pid in pids)


def forget_peak(pid: int) -> None:
    """From now on the peak is measured anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pid: int) -> int:
    """The most that was resident at once since `forget_peak`, by the kernel's own count: no sample misses it."""
    return _read(Path(f"/proc/{pid}/status"), _PEAK)


def _read(file: Path, pattern: re.Pattern[str]) -> int:
    found = pattern.search(file.read_text())
    if found is None:
        raise OSError(f"{file}: no {pattern.pattern}")
    return int(found[1]) * 1024
