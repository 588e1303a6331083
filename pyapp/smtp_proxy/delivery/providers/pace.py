"""How fast to call an API that says "slow down" and nothing more. No I/O; time is given.

Additive increase, multiplicative decrease, as TCP does it: each refusal halves the rate and pauses, each success adds a
little. So all processes of a fleet settle at their share of the account's rate without being told what it is.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_LEAST_RATE: Final = 0.2  # a second
_PAUSE_FIRST_SECONDS: Final = 1.0
_PAUSE_MOST_SECONDS: Final = 60.0
_INCREASE: Final = 0.01  # of the most, by each success


class Pace:
    """Tells when the next call may be made. Times are monotonic seconds, rates a second."""

    def __init__(self, most: float, chance: Callable[[], float] = random.random) -> None:
        self.most = most
        self.rate = most
        self._chance = chance
        self._next_at = 0.0
        self._pause = _PAUSE_FIRST_SECONDS
        self._paused_until = 0.0

    def wait_seconds(self, now: float) -> float:
        """How long until a call may be made; takes nothing."""
        return max(0.0, self._next_at - 1.0 - now, self._paused_until - now)

    def take(self, count: int, now: float) -> None:
        """`count` recipients are about to be sent to. A second's worth may go at once."""
        self._next_at = max(self._next_at, now) + count / self.rate

    def went_well(self) -> None:
        self.rate = min(self.most, self.rate + self.most * _INCREASE)
        self._pause = _PAUSE_FIRST_SECONDS

    def too_fast(self, now: float) -> None:
        """The API refused. What was refused together with this one counts once."""
        if now < self._paused_until:
            return
        self.rate = max(_LEAST_RATE, self.rate / 2)
        self._paused_until = now + self._pause * (0.5 + self._chance())
        self._pause = min(self._pause * 2, _PAUSE_MOST_SECONDS)
