"""Processes that a supervisor which was killed left behind: found again by id and time of birth, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smtp_proxy.dev.home import Home

log = logging.getLogger(__name__)

FILE = "processes.json"
_PATIENCE_SECONDS = 20.0
# Postgres takes SIGINT for "stop now, in good order"; everything of ours stops at SIGTERM.
_SIGNALS = {"postgres": signal.SIGINT}


def remember(home: Home, pids: Mapping[str, int]) -> None:
    """Note who runs now. Raises ConfigurationError."""
    home.write_json(FILE, {name: [pid, _born(pid)] for name, pid in pids.items()})


async def end(home: Home) -> None:
    """End what still runs of the last time. Raises ConfigurationError."""
    alive = dict(_alive(home.read_json(FILE)))
    # Those that use the servers first, the servers last.
    for name, pid in sorted(alive.items(), key=lambda item: item[0] in ("postgres", "valkey")):
        log.warning("ending %s (%d), which an earlier run left behind", name, pid, extra={"action": "leftover"})
        await _end(name, pid)
    remember(home, {})


def _alive(noted: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Those of `name: [pid, time of birth]` that run; what has not that form was not written by us."""
    for name, value in noted.items():
        match value:
            case [int(pid), str(born)] if _born(pid) == born:
                yield name, pid


async def _end(name: str, pid: int) -> None:
    born = _born(pid)
    for number, patience in ((_SIGNALS.get(name, signal.SIGTERM), _PATIENCE_SECONDS), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience
        # Not our child: nothing tells us of its end.
        while _born(pid) == born and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        if _born(pid) != born:
            return


def _born(pid: int) -> str | None:
    """When a process was started, in the kernel's ticks; None: it is gone, or this is not Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
