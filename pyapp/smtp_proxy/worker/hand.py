"""The jobs that this worker holds: claimed and waiting for their turn, and under way.

It decides how much more to take. Enough waits that no turn is lost while the next claim runs, and no more than is done
in half a second at the present pace, because another worker may be free now.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smtp_proxy.stream.interface import Entry
    from smtp_proxy.worker.lease import Claim

_AHEAD_SECONDS: Final = 0.5
# Bodies held at once, bytes; a claim that goes beyond is bounded by the store.
_BODIES_BYTES: Final = 128 * 1024 * 1024
_PACE_SHARE: Final = 0.05  # of a new measurement in the running mean


class Held:
    """A job in hand, with the stream entries that spoke of it."""

    __slots__ = ("claim", "entries")

    def __init__(self, claim: Claim, entries: Sequence[Entry]) -> None:
        self.claim = claim
        self.entries = entries


class Hand:
    """Between the intake and the deliveries."""

    def __init__(self, concurrency: int, batch_messages: int) -> None:
        self._concurrency = concurrency
        self._batch = batch_messages
        self._waiting: deque[Held] = deque()
        self._turns: deque[asyncio.Future[None]] = deque()
        self._under_way = 0
        self._bytes = 0
        self._seconds_each = 0.05
        self._has_room = asyncio.Event()
        self._has_room.set()

    def put(self, claim: Claim, entries: Sequence[Entry]) -> None:
        """Take a job in hand."""
        self._waiting.append(Held(claim, entries))
        self._bytes += len(claim.job.envelope.body)
        self._next_turn()

    async def take(self) -> Held:
        """Wait for a job to deliver."""
        while not self._waiting:
            turn = asyncio.get_running_loop().create_future()
            self._turns.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._next_turn()
                raise
        held = self._waiting.popleft()
        self._under_way += 1
        self._look_for_room()
        return held

    def delivered(self, seconds: float) -> None:
        """A delivery has ended, one way or the other; its outcome is still in hand."""
        self._under_way -= 1
        self._seconds_each += _PACE_SHARE * (seconds - self._seconds_each)
        self._look_for_room()

    def settled(self, held: Held) -> None:
        """A job is done with."""
        self._bytes -= len(held.claim.job.envelope.body)
        self._look_for_room()

    def drop_waiting(self) -> list[Held]:
        """Give up what has not been started."""
        dropped, self._waiting = list(self._waiting), deque()
        return dropped

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def under_way(self) -> int:
        return self._under_way

    async def room(self) -> int:
        """Wait until more should be taken, and say how much."""
        while (room := self._room()) == 0:
            self._has_room.clear()
            await self._has_room.wait()
        return room

    def _room(self) -> int:
        ahead = min(self._batch, int(self._concurrency * _AHEAD_SECONDS / max(self._seconds_each, 0.0001)))
        waiting = len(self._waiting)
        if (waiting and waiting > ahead // 2) or (self._bytes >= _BODIES_BYTES):
            return 0
        return max(0, min(self._batch, self._concurrency - self._under_way + ahead - waiting))

    def _look_for_room(self) -> None:
        if not self._has_room.is_set() and self._room():
            self._has_room.set()

    def _next_turn(self) -> None:
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return
