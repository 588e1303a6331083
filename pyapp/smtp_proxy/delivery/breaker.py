"""A circuit breaker of one next hop: what cannot be reached is not tried again for every message.

    closed ──failures in a row──▶ open ──cool-down over──▶ half-open ──the probe succeeded──▶ closed
                                    ▲                          │
                                    └──── it failed: twice as long, with jitter ◀

Only what concerns the next hop as a whole counts: no connection, no TLS, no answer in time, 421. A reply to one
recipient does not. Whatever goes well closes the circuit. While it is open, of failures only those of its probes count,
those included that gave way to another after a minute: of a next hop that hangs for longer, every one does.

Pure: time and chance are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FAILURES: Final = 5  # in a row
COOL_DOWN_SECONDS: Final = 5.0  # the first, about as long as a restart; each probe that fails doubles it
COOL_DOWN_MAX_SECONDS: Final = 300.0
JITTER: Final = 0.2  # share by which a cool-down is shorter or longer, so that a fleet does not probe as one
# A probe of which nothing has come gives way to another after so long.
_PROBE_SECONDS: Final = 60.0


class Breaker:
    """Times are monotonic seconds; `chance` is in [0, 1)."""

    __slots__ = ("_chance", "_cool_down", "_failures", "_last", "_probe_until", "_until", "probe")

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._failures = 0
        self._cool_down = COOL_DOWN_SECONDS
        self._until: float | None = None  # not None: open
        self._probe_until: float | None = None
        self.probe = 0  # the number of the last one
        self._last = ""

    @property
    def is_open(self) -> bool:
        """Open or half-open: ordinary mail does not go."""
        return self._until is not None

    @property
    def is_pristine(self) -> bool:
        """Nothing would be lost by forgetting it."""
        return self._until is None and not self._failures

    def may_go(self, now: float) -> bool:
        """Whether `allows` would say yes; takes nothing."""
        return self._until is None or not (
            now < self._until or (self._probe_until is not None and now < self._probe_until)
        )

    def is_probed(self, now: float) -> bool:
        """Half-open: a probe is under way, and what comes of it is known in a moment."""
        return self._until is not None and now >= self._until and not self.may_go(now)

    def probed_seconds(self, now: float) -> float:
        """For how long a probe has been under way; 0: none is."""
        return 0.0 if self._probe_until is None else now - (self._probe_until - _PROBE_SECONDS)

    def allows(self, now: float) -> bool:
        """Whether one may go now. When open and the cool-down is over, the one who asks is the probe."""
        if self._until is None:
            return True
        if not self.may_go(now):
            return False
        self._probe_until = now + _PROBE_SECONDS
        self.probe += 1
        return True

    def not_asked(self, probe: int) -> None:
        """The probe learned nothing; the next one who asks is the probe, unless another is already."""
        if probe == self.probe and self._probe_until is not None:
            self._probe_until = self._until  # which is past: an older one may still fail

    def succeeded(self) -> None:
        """It was reached and talked to us."""
        self._failures, self._until, self._probe_until, self._cool_down = 0, None, None, COOL_DOWN_SECONDS

    def failed(self, now: float, text: str, probe: int = 0) -> bool:
        """It could not be used. Returns whether the breaker opened by this, or opened anew.

        `probe`: which one of this breaker's it was; 0: none of them.
        """
        self._failures += 1
        self._last = text
        if self._until is None:
            if self._failures < FAILURES:
                return False
        elif self._probe_until is None or not probe:
            return False  # began before it opened, or another probe failed before and none went since: no news
        else:
            self._cool_down = min(self._cool_down * 2, COOL_DOWN_MAX_SECONDS)
        self._probe_until = None
        self._until = now + self._cool_down * (1 + JITTER * (2 * self._chance() - 1))
        return True

    def text(self, now: float) -> str:
        """Why mail does not go, for the attempt."""
        seconds = max(0.0, (self._until or now) - now)
        when = f"in {seconds:.0f} s" if seconds >= 1 else "right now"
        return f"not tried: {self._failures} failures in a row, at last: {self._last}; probed again {when}"
