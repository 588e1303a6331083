"""For how long this process itself stood still: replies lay there unread, which says nothing of a destination's pace.

Its machine may stand, its container's share of the CPU may be used up, or a long piece of work keeps the event loop.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from smtp_proxy.clock import Clock

_TICK_SECONDS: Final = 0.05
_NOTICED_SECONDS: Final = 0.05  # a tick that is no later than this tells nothing
# What may have been missed of a time that it stood.
UNNOTICED_SECONDS: Final = _TICK_SECONDS + _NOTICED_SECONDS
# An event loop that is always late has too much to do, and that is the pace at which its mail goes. So of pieces up
# to 2 s no more than about this share of all time counts as stood still. A long one counts whole if any of it
# is left, and one of over 8 s each time: no work of ours takes so long.
_SHARE: Final = 0.25
_CREDIT_SECONDS: Final = 2.0  # of that share, what may be saved up, and owed


class Standstill:
    """A timer of one loop that should be on time, while anything is under way. Times: `clock.monotonic()`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._under_way = 0
        self._due = math.inf  # when the timer fires at the latest, if nothing stands
        self._is_ticking = False
        self._stood = 0.0
        self._awake = -math.inf
        self._credit = _CREDIT_SECONDS
        self._credit_at = clock.monotonic()

    def begin(self) -> None:
        """Something is under way, until its `end()`."""
        self._under_way += 1
        if not self._is_ticking:
            self._is_ticking = True
            self._wait()

    def end(self) -> None:
        self._under_way -= 1

    def awake_seconds(self, now: float) -> float:
        """`now` without the time in which this process stood still: it goes on as `now` does, and never back."""
        late = now - self._due
        if late > _NOTICED_SECONDS:
            # Whoever reads first after it notices it, which need not be the timer.
            self._due = now
            self._note(late, now)
        self._awake = max(self._awake, now - self._stood)  # what was too little to be noticed is part of it now
        return self._awake

    def _note(self, seconds: float, now: float) -> None:
        earned = (now - self._credit_at) * _SHARE
        self._credit = min(_CREDIT_SECONDS, self._credit + earned)
        self._credit_at = now
        if self._credit > 0:
            self._stood += seconds
            self._credit = max(-_CREDIT_SECONDS, self._credit - seconds)

    def _wait(self) -> None:
        self._due = self._clock.monotonic() + _TICK_SECONDS
        asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self.awake_seconds(self._clock.monotonic())
        self._is_ticking = self._under_way > 0
        if self._is_ticking:
            self._wait()
        else:
            self._due = math.inf
