"""How fast to call an API that says "slow down" and nothing more. No I/O; time is given.

Additive increase, multiplicative decrease, as TCP does it: each refusal halves the rate and pauses, each success adds a
little. Over the fleet it is one pace in Redis (`stream.paces`); a process that is alone, or without Redis, has its own.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final

from smtp_proxy.errors import StreamUnavailable
from smtp_proxy.stream.paces import Backoff, Rates

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from smtp_proxy.clock import Clock
    from smtp_proxy.stream.paces import Paces

log = logging.getLogger(__name__)

_LEAST_RATE: Final = 0.2  # a second
_PAUSE_FIRST_SECONDS: Final = 1.0
_PAUSE_MOST_SECONDS: Final = 60.0
_INCREASE: Final = 0.01  # of the most, by each success
# Redis that was away is asked again after so long.
_AWAY_SECONDS: Final = 2.0


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

    def went_well(self, now: float) -> None:
        """A call succeeded. One that was under way when the API refused says nothing of what comes after."""
        if now < self._paused_until:
            return
        self.rate = min(self.most, self.rate + self.most * _INCREASE)
        self._pause = _PAUSE_FIRST_SECONDS

    def too_fast(self, now: float) -> None:
        """The API refused. What was refused together with this one counts once."""
        if now < self._paused_until:
            return
        self.rate = max(_LEAST_RATE, self.rate / 2)
        self._paused_until = now + self._pause * (0.5 + self._chance())
        self._pause = min(self._pause * 2, _PAUSE_MOST_SECONDS)


class FleetPace:
    """One pace for all workers, by `name`, whichever `most` each has; `paces` None: this process is the fleet."""

    def __init__(
        self,
        name: str,
        most: float,
        clock: Clock,
        paces: Paces | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.own = Pace(most, chance)
        self._name = name
        self._rates = Rates(most, _LEAST_RATE)
        self._clock = clock
        self._paces = paces
        self._chance = chance
        self._away_until = 0.0
        self._slowed = False
        self._refusal: asyncio.Task[None] | None = None

    async def take(self, count: int, patience_seconds: float) -> float:
        """How long to wait before `count` are sent; where that is longer than the patience, nothing is taken."""
        if self._refusal is not None and not self._refusal.done():
            await asyncio.wait([self._refusal])  # what this worker sends next comes after it
        if (paces := self._fleet()) is not None:
            try:
                turn = await paces.take(self._name, self._rates, count, patience_seconds)
            except StreamUnavailable as error:
                self._is_away(error)
            else:
                self._slowed = turn.is_slowed
                return turn.wait_seconds
        now = self._clock.monotonic()
        wait = self.own.wait_seconds(now)
        if wait <= patience_seconds:
            self.own.take(count, now)
        return wait

    def went_well(self) -> None:
        """A call succeeded. Nothing waits for the others to hear of it: the mail is sent, and that must be recorded."""
        self.own.went_well(self._clock.monotonic())
        if self._slowed and (paces := self._fleet()) is not None:
            paces.in_background(self._tell(paces.went_well(self._name, self._rates, _INCREASE)))

    def too_fast(self) -> None:
        """The API refused one of this worker's calls: all workers go slower. Heard of as `went_well` is."""
        self.own.too_fast(self._clock.monotonic())
        if (paces := self._fleet()) is not None:
            backoff = Backoff(_PAUSE_FIRST_SECONDS, _PAUSE_MOST_SECONDS, 0.5 + self._chance())
            self._refusal = paces.in_background(self._tell(paces.too_fast(self._name, self._rates, backoff)))

    async def _tell(self, telling: Awaitable[object]) -> None:
        try:
            await telling
        except StreamUnavailable as error:
            self._is_away(error)

    def _fleet(self) -> Paces | None:
        return self._paces if self._clock.monotonic() >= self._away_until else None

    def _is_away(self, error: StreamUnavailable) -> None:
        if self._fleet() is None:
            return  # others heard so at the same time
        self._away_until = self._clock.monotonic() + _AWAY_SECONDS
        log.warning("%s: at this worker's own pace: %s", self._name, error, extra={"action": "pace_alone"})
