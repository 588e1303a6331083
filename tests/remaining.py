"""What is left of a wait that a server reckons by its own clock, on a machine that may stand still meanwhile."""

from __future__ import annotations

import time
from typing import Final

# A server tells whole milliseconds, and its clock and ours are read one after the other.
_ROUNDING_SECONDS: Final = 0.003


class Remaining:
    """Equal to a wait of `seconds`, asked for after `since`: no longer, and shorter by no more than has passed.

    `since` is `time.monotonic()` of before the wait could begin. To be made after the wait was told, as the right side
    of a comparison is. A stall as long as the wait leaves nothing to compare, so who may do without the server is to be
    asked besides whether it did.
    """

    def __init__(self, seconds: float, since: float) -> None:
        self._least = max(0.0, seconds - (time.monotonic() - since)) - _ROUNDING_SECONDS
        self._most = seconds + _ROUNDING_SECONDS

    def __eq__(self, wait: object) -> bool:
        return isinstance(wait, float | int) and self._least <= wait <= self._most

    def __hash__(self) -> int:
        return hash((self._least, self._most))

    def __repr__(self) -> str:
        return f"{self._least:.3f} to {self._most:.3f} s"
