"""The jobs that this worker holds: claimed and waiting for their turn, under way, or waiting for their destination.

It decides how much more to take. Enough waits that no turn is lost while the next claim runs, and no more than is done
in half a second at the present pace, because another worker may be free now. Of what waits here transactional
mail goes before bulk mail, but for a share of the turns.

A turn is for what makes progress. Whoever waits for a destination lends it; and one that is held for long is lent
without being asked: it waits for a slow server, which costs a socket and nothing else. So a few destinations that stand
can not use up the turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from smtp_proxy.model.lane import Lane, Shares

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smtp_proxy.stream.interface import Entry
    from smtp_proxy.worker.lease import Claim

_AHEAD_SECONDS: Final = 0.5
# Bodies held at once, bytes; a claim that goes beyond is bounded by the store.
_BODIES_BYTES: Final = 128 * 1024 * 1024
_PACE_SHARE: Final = 0.05  # of a new measurement in the running mean
# From here on a turn is lent.
SLOW_SECONDS: Final = 1.0
# So many times `worker_concurrency` may be without a turn, and at least so many.
_LENT_TIMES: Final = 8
_LENT_LEAST: Final = 256


class Held:
    """A job in hand, with the stream entries that spoke of it."""

    __slots__ = ("began_at", "claim", "entries")

    def __init__(self, claim: Claim, entries: Sequence[Entry]) -> None:
        self.claim = claim
        self.entries = entries
        self.began_at = 0.0  # monotonic, when it was handed out


class Turn:
    """See `delivery.turn.Turn`. It is held, lent while its holder waits, or lent since its holder is slow."""

    __slots__ = ("_hand", "_is_soon", "_loop", "_state", "began_at")

    def __init__(self, hand: Hand, loop: asyncio.AbstractEventLoop) -> None:
        self._hand = hand
        self._loop = loop
        self._state = "held"
        self._is_soon = False
        self.began_at = loop.time()

    def lend(self, seconds: float) -> bool:
        hand = self._hand
        if self._state == "slow":
            return True
        if not hand.may_lend:
            return False
        self._state, self._is_soon = "lent", seconds <= _AHEAD_SECONDS
        hand.lent += 1
        hand.soon += self._is_soon
        hand.let_go(self)
        return True

    async def regain(self) -> None:
        if self._state != "lent":
            return
        if self._hand.has_turn:
            self.take()
        else:
            await self._hand.wait_for_turn(self)

    def take(self) -> None:
        """It is held again."""
        self._end_loan()
        self._state, self.began_at = "held", self._loop.time()
        self._hand.hold(self)

    def lend_as_slow(self) -> None:
        """It is held for long: another may have it."""
        self._state = "slow"
        self._hand.lent += 1
        self._hand.let_go(self)

    def end(self) -> float | None:
        """The delivery has ended. Returns for how long the turn was held since last taken; None: not to the end."""
        state, self._state = self._state, "ended"
        if state == "held":
            self._hand.let_go(self)
            return self._loop.time() - self.began_at
        if state == "lent":
            self._end_loan()
        elif state == "slow":
            self._hand.lent -= 1
        return None

    def _end_loan(self) -> None:
        self._hand.lent -= 1
        self._hand.soon -= self._is_soon


class Hand:
    """Between the intake and the deliveries."""

    def __init__(self, concurrency: int, batch_messages: int) -> None:
        self._concurrency = concurrency
        self._batch = batch_messages
        self._most_lent = max(_LENT_LEAST, _LENT_TIMES * concurrency)
        self._lanes: dict[Lane, deque[Held]] = {lane: deque() for lane in Lane}
        self._shares = Shares()
        self._arrival: asyncio.Future[None] | None = None  # of whoever waits in `take`
        self._regaining: dict[Turn, asyncio.Future[None]] = {}  # the longest first
        self._under_way: dict[Turn, None] = {}  # the longest first
        self.lent = 0
        self.soon = 0  # of these, what goes on within the time that is taken ahead for
        self._bytes = 0
        self._seconds_each = 0.05
        self._has_room = asyncio.Event()
        self._has_room.set()

    def put(self, claim: Claim, entries: Sequence[Entry]) -> None:
        """Take a job in hand."""
        self._lanes[claim.job.lane].append(Held(claim, entries))
        self._bytes += len(claim.job.envelope.body)
        self._wake_taker()

    async def take(self) -> tuple[Held, Turn]:
        """Wait for a job to deliver and a turn to do it. For one task at a time."""
        while not (self.waiting and self.has_turn):
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        held = self._next().popleft()
        turn = Turn(self, asyncio.get_running_loop())
        self.hold(turn)
        self._look_for_room()
        return held, turn

    def delivered(self, turn: Turn) -> None:
        """A delivery has ended, one way or the other; its outcome is still in hand."""
        seconds = turn.end()
        if seconds is not None:
            self._seconds_each += _PACE_SHARE * (seconds - self._seconds_each)
        self._look_for_room()

    def settled(self, held: Held) -> None:
        """A job is done with."""
        self._bytes -= len(held.claim.job.envelope.body)
        self._look_for_room()

    def drop_waiting(self) -> list[Held]:
        """Give up what has not been started."""
        dropped = [held for lane in self._lanes.values() for held in lane]
        for lane in self._lanes.values():
            lane.clear()
        return dropped

    def lend_slow(self) -> None:
        """Lend what is held for long. To be called a few times in SLOW_SECONDS."""
        before = asyncio.get_running_loop().time() - SLOW_SECONDS
        for turn in list(self._under_way):
            if turn.began_at > before or self.lent >= self._most_lent:
                break
            turn.lend_as_slow()
        self._look_for_room()

    @property
    def waiting(self) -> int:
        return sum(map(len, self._lanes.values()))

    @property
    def busy_share(self) -> float:
        """How much of its turns is in use, 0 to 1."""
        return min(1.0, len(self._under_way) / self._concurrency)

    @property
    def under_way(self) -> int:
        """How many hold a turn."""
        return len(self._under_way)

    async def room(self) -> int:
        """Wait until more should be taken, and say how much."""
        while (room := self._room()) == 0:
            self._has_room.clear()
            await self._has_room.wait()
        return room

    # -- what a turn asks

    @property
    def has_turn(self) -> bool:
        return len(self._under_way) < self._concurrency and not self._regaining

    @property
    def may_lend(self) -> bool:
        """Half of what may be lent at all, and of the bodies, is left to those that are slow."""
        return self.lent < self._most_lent // 2 and self._bytes < _BODIES_BYTES // 2

    def hold(self, turn: Turn) -> None:
        self._under_way[turn] = None

    def let_go(self, turn: Turn) -> None:
        """Those that have a place at their destination go first: it waits for them."""
        del self._under_way[turn]
        self._next_turn()
        self._look_for_room()

    async def wait_for_turn(self, turn: Turn) -> None:
        self._regaining[turn] = taken = asyncio.get_running_loop().create_future()
        try:
            await taken
        finally:
            self._regaining.pop(turn, None)  # if it was broken off before that; after it, `delivered` ends the turn

    # -- details

    def _next(self) -> deque[Held]:
        """Whose turn it is, of those that wait."""
        first, bulk = self._lanes[Lane.TRANSACTIONAL], self._lanes[Lane.BULK]
        if first and bulk:
            return bulk if self._shares.bulk(1) else first
        return first or bulk

    def _next_turn(self) -> None:
        if self._regaining:
            turn = next(iter(self._regaining))
            taken = self._regaining.pop(turn)
            turn.take()
            if not taken.done():
                taken.set_result(None)
        else:
            self._wake_taker()

    def _wake_taker(self) -> None:
        if self._arrival is not None and not self._arrival.done() and self.waiting and self.has_turn:
            self._arrival.set_result(None)

    def _room(self) -> int:
        ahead = min(self._batch, int(self._concurrency * _AHEAD_SECONDS / max(self._seconds_each, 0.0001)))
        waiting = self.waiting + self.soon
        if (waiting and waiting > ahead // 2) or (self._bytes >= _BODIES_BYTES):
            return 0
        return max(0, min(self._batch, self._concurrency - len(self._under_way) + ahead - waiting))

    def _look_for_room(self) -> None:
        if not self._has_room.is_set() and self._room():
            self._has_room.set()
