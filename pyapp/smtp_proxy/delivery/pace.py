"""How much one destination takes: additive increase, multiplicative decrease of its concurrency, then of its rate.

421 halves it, a transaction in which every recipient is put off (4xx) takes a fifth; one that went well adds so much
that a whole round of them adds one. At one transaction at a time, a pause before the next is what grows and shrinks.
What was under way when it was slowed down says nothing new, so it does not slow it down again. Pure: time is given.
"""

from __future__ import annotations

from typing import Final

TURNED_AWAY: Final = 0.5  # factor
PUT_OFF: Final = 0.8
PAUSE_FIRST_SECONDS: Final = 0.25
PAUSE_MAX_SECONDS: Final = 60.0
_PAUSE_GROWS: Final = 2.0
_PAUSE_SHRINKS: Final = 0.7


class Pace:
    """Of one destination. Times are monotonic seconds."""

    __slots__ = ("_concurrency", "_next_at", "_pause", "_slowed_at", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._concurrency = float(most)
        self._pause = 0.0
        self._next_at = 0.0
        self._slowed_at = -1.0

    @property
    def concurrency(self) -> int:
        """How many transactions at once, from 1 to `most`."""
        return int(self._concurrency)

    @property
    def pause_seconds(self) -> float:
        """Between the beginnings of two transactions; 0: none."""
        return self._pause

    @property
    def is_full(self) -> bool:
        """Not slowed down."""
        return self._concurrency >= self.most and not self._pause

    def wait_seconds(self, now: float) -> float:
        """Until the next may begin."""
        return max(0.0, self._next_at - now) if self._pause else 0.0

    def began(self, now: float) -> None:
        """A transaction begins."""
        if self._pause:
            self._next_at = now + self._pause

    def went_well(self) -> None:
        """Somebody's copy was taken, or refused for good: the server was willing to talk."""
        if self._pause:
            self._pause = self._pause * _PAUSE_SHRINKS if self._pause > PAUSE_FIRST_SECONDS else 0.0
        elif self._concurrency < self.most:
            self._concurrency = min(float(self.most), self._concurrency + 1 / self._concurrency)

    def slow_down(self, factor: float, began_at: float, now: float) -> bool:
        """The server asks for less. False: it was asked of before this transaction began."""
        if began_at <= self._slowed_at:
            return False
        self._slowed_at = now
        if self._concurrency > 1:
            self._concurrency = max(1.0, self._concurrency * factor)
        else:
            self._pause = min(PAUSE_MAX_SECONDS, max(PAUSE_FIRST_SECONDS, self._pause * _PAUSE_GROWS))
            self._next_at = now + self._pause
        return True
