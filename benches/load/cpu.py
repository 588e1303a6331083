"""CPU seconds of whole process trees, those that ended included. Linux only (/proc).

A process that ended and was waited for has left its time with its parent (cutime, cstime), so the sum over a living
tree misses nobody. Times are in clock ticks of 10 ms: a run of some seconds is exact to a few per cent.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

Groups = Mapping[str, Iterable[int]]


def _processes() -> dict[int, tuple[int, float]]:
    """Pid to parent and CPU seconds, waited-for children included."""
    found: dict[int, tuple[int, float]] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it just ended; its parent has its time
        # The name, in parentheses, may hold anything; what follows the last one is numbers (proc(5)).
        fields = stat.rpartition(")")[2].split()
        found[int(folder.name)] = (int(fields[1]), sum(map(int, fields[11:15])) / _TICKS_PER_SECOND)
    return found


def used_seconds(groups: Groups) -> dict[str, float]:
    """CPU seconds so far of each group: its processes and what they started, but not what is another group's.

    Raises:
        ProcessLookupError: one of them is gone; what it used can not be known.
    """
    processes = _processes()
    children: dict[int, list[int]] = defaultdict(list)
    for pid, (parent, _) in processes.items():
        children[parent].append(pid)
    roots = {pid for pids in groups.values() for pid in pids}
    if gone := roots - processes.keys():
        raise ProcessLookupError(f"measured processes have ended: {sorted(gone)}")
    used = {}
    for name, pids in groups.items():
        tree, waiting = 0.0, list(dict.fromkeys(pids))
        while waiting:
            pid = waiting.pop()
            tree += processes[pid][1]
            waiting += [child for child in children[pid] if child not in roots]
        used[name] = tree
    return used


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What each group used in between, seconds."""
    return {name: round(after[name] - before[name], 3) for name in after}
