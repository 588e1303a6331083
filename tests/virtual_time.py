"""Time that passes only in name: an event loop on which whoever sleeps is woken at once, in the right order.

For tests over fakes alone. With sockets or threads the clock would run ahead of their answers.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Waits for nothing but callbacks: when none is ready, its clock jumps to the next timer."""

    def __init__(self) -> None:
        self._seconds = 0.0
        super().__init__(_Jumping(self._pass))

    def time(self) -> float:
        return self._seconds

    def _pass(self, seconds: float) -> None:
        self._seconds = round(self._seconds + seconds, 9)  # else thousands of short waits add up to their roundings


class LoopClock:
    """The running loop's time, on both faces."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = datetime.now(UTC) - timedelta(seconds=self._loop.time())

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return self._loop.time()


class _Jumping(selectors.DefaultSelector):
    """Does not wait: says for how long it would have."""

    def __init__(self, waited: Callable[[float], None]) -> None:
        super().__init__()
        self._waited = waited

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(0)
        if not events:
            self._waited(timeout)
        return events
