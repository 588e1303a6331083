"""The jobs that this worker holds: claimed and waiting for their turn, under way, or waiting for their destination.

It decides how much more to take. Enough waits that no turn is lost while the next claim runs, and no more than is done
in half a second at the present pace, because another worker may be free now. Of what waits here transactional
mail goes before bulk mail, but for a share of the turns, and what has just come does not wait for an old backlog
(`waiting`).

A turn is for what makes progress. Whoever waits for a destination lends it; and one that is held for long is lent
without being asked: it waits for a slow server, which costs a socket and nothing else. So a few destinations that stand
can not use up the turns. Of the turns, and of what may be lent, bulk mail leaves a part to transactional mail, which so
finds its way past any number of slow destinations of a newsletter.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from smtp_proxy.model.lane import Lane, Shares
from smtp_proxy.worker.waiting import NewAndOld

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
# Bulk mail may have so much of what is lent, and of the bodies; and all turns but one in ten, and but one at least.
_BULK_SHARE: Final = 0.75
_KEPT_OF_TURNS: Final = 10


class Held:
    """A job in hand, with the stream entries that spoke of it."""

    __slots__ = ("began_at", "claim", "entries", "is_new", "since")

    def __init__(self, claim: Claim, entries: Sequence[Entry], is_new: bool) -> None:
        self.claim = claim
        self.entries = entries
        self.is_new = is_new
        self.since = asyncio.get_running_loop().time()
        self.began_at = 0.0  # monotonic, when it was handed out


@dataclass(frozen=True, slots=True)
class Room:
    """How many messages to take, and whether bulk mail may be among them."""

    count: int
    bulk: bool = True


class Turn:
    """See `delivery.turn.Turn`. It is held, lent while its holder waits, or lent since its holder is slow."""

    __slots__ = ("_hand", "_is_soon", "_loop", "_state", "began_at", "lane")

    def __init__(self, hand: Hand, lane: Lane, loop: asyncio.AbstractEventLoop) -> None:
        self.lane = lane
        self._hand = hand
        self._loop = loop
        self._state = "held"
        self._is_soon = False
        self.began_at = loop.time()

    def lend(self, seconds: float) -> bool:
        hand = self._hand
        if self._state == "slow":
            return True
        if not hand.may_lend(self.lane):
            return False
        self._state, self._is_soon = "lent", seconds <= _AHEAD_SECONDS
        hand.count_lent(self.lane, 1)
        hand.count_soon(self.lane, self._is_soon)
        hand.let_go(self)
        return True

    async def regain(self) -> None:
        if self._state != "lent":
            return
        if self._hand.has_turn(self.lane):
            self.take()
        elif self._hand.keeps_from(self.lane):
            self.go_on()
        else:
            await self._hand.wait_for_turn(self)

    def go_on(self) -> None:
        """Without a turn, as one that is slow does: it has a place at its destination, where others wait for that."""
        self._hand.count_soon(self.lane, -self._is_soon)
        self._is_soon = False
        self._state = "slow"

    def take(self) -> None:
        """It is held again."""
        self._end_loan()
        self._state, self.began_at = "held", self._loop.time()
        self._hand.hold(self)

    def lend_as_slow(self) -> None:
        """It is held for long: another may have it."""
        self._state = "slow"
        self._hand.count_lent(self.lane, 1)
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
            self._hand.count_lent(self.lane, -1)
        return None

    def _end_loan(self) -> None:
        self._hand.count_lent(self.lane, -1)
        self._hand.count_soon(self.lane, -self._is_soon)


class Hand:
    """Between the intake and the deliveries."""

    def __init__(self, concurrency: int, batch_messages: int) -> None:
        self._concurrency = concurrency
        self._batch = batch_messages
        self._most_lent = max(_LENT_LEAST, _LENT_TIMES * concurrency)
        self._most_bulk_turns = max(1, concurrency - max(1, concurrency // _KEPT_OF_TURNS))
        self._first = NewAndOld[Held]()  # transactional
        self._bulk: deque[Held] = deque()
        self._shares = Shares()
        self._arrival: asyncio.Future[None] | None = None  # of whoever waits in `take`
        self._regaining: dict[Turn, asyncio.Future[None]] = {}  # the longest first
        self._under_way: dict[Turn, None] = {}  # the longest first
        self._bulk_under_way = 0
        self.lent = 0
        self._bulk_lent = 0
        self.soon = 0  # of these, what goes on within the time that is taken ahead for
        self._bulk_soon = 0
        self._bytes = 0
        self._bulk_bytes = 0
        self._seconds_each = 0.05
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._looks = False  # for room, as soon as what happens now is over

    def put(self, claim: Claim, entries: Sequence[Entry], *, is_new: bool = True) -> None:
        """Take a job in hand. `is_new`: it was accepted a moment ago, and somebody may be waiting for it."""
        self._lane(claim.job.lane).append(Held(claim, entries, is_new))
        self._count_bytes(claim, 1)
        self._wake_taker()

    async def take(self) -> tuple[Held, Turn]:
        """Wait for a job to deliver and a turn to do it. For one task at a time."""
        while (lane := self._next()) is None:
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        held = self._lane(lane).popleft()
        turn = Turn(self, lane, asyncio.get_running_loop())
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
        self._count_bytes(held.claim, -1)
        self._look_for_room()

    def drop_waiting(self) -> list[Held]:
        """Give up what has not been started."""
        dropped = [*self._first, *self._bulk]
        self._first.clear()
        self._bulk.clear()
        return dropped

    def lend_slow(self) -> None:
        """Lend what is held for long. To be called a few times in SLOW_SECONDS."""
        before = asyncio.get_running_loop().time() - SLOW_SECONDS
        for turn in list(self._under_way):
            if turn.began_at > before or self.lent >= self._most_lent:
                break
            if turn.lane is not Lane.BULK or self._bulk_lent < self._most_lent * _BULK_SHARE:
                turn.lend_as_slow()
        self._look_for_room()

    @property
    def waiting(self) -> int:
        return len(self._first) + len(self._bulk)

    @property
    def busy_share(self) -> float:
        """How much of its turns, or of what may be lent of them, is in use, 0 to 1: whichever is more.

        Slow next hops use up the second. Workers are scaled in by it, so that none goes whose waiting others have no
        room for.
        """
        turns = len(self._under_way) / self._concurrency
        lent = max(self.lent, self._bulk_lent / _BULK_SHARE) / self._most_lent
        return min(1.0, max(turns, lent))

    @property
    def under_way(self) -> int:
        """How many hold a turn."""
        return len(self._under_way)

    async def room(self) -> Room:
        """Wait until more should be taken, and say how much."""
        while not (room := self._room()).count:
            self._has_room.clear()
            await self._has_room.wait()
        return room

    # -- what a turn asks

    def has_turn(self, lane: Lane) -> bool:
        """Whether there is one, and nobody who waits to have his back."""
        return self._has_free_turn(lane) and self._first_regaining() is None

    def may_lend(self, lane: Lane) -> bool:
        """Half of what may be lent at all, and of the bodies, is left to those that are slow."""
        if self.lent >= self._most_lent:
            return False
        if lane is Lane.BULK:
            return self._bulk_lent < self._most_lent // 2 * _BULK_SHARE and self._bytes < _BODIES_BYTES // 2
        # Its own are counted, since slow bulk may have more than half of all.
        return (
            self.lent - self._bulk_lent < self._most_lent // 2 and self._bytes - self._bulk_bytes < _BODIES_BYTES // 2
        )

    def keeps_from(self, lane: Lane) -> bool:
        """Whether it is the other lane's part alone that leaves no turn for this one."""
        return len(self._under_way) < self._concurrency and not self._has_free_turn(lane)

    def count_lent(self, lane: Lane, count: int) -> None:
        self.lent += count
        if lane is Lane.BULK:
            self._bulk_lent += count

    def count_soon(self, lane: Lane, count: int) -> None:
        self.soon += count
        if lane is Lane.BULK:
            self._bulk_soon += count

    def hold(self, turn: Turn) -> None:
        self._under_way[turn] = None
        self._bulk_under_way += turn.lane is Lane.BULK

    def let_go(self, turn: Turn) -> None:
        """Those that have a place at their destination go first: it waits for them."""
        del self._under_way[turn]
        self._bulk_under_way -= turn.lane is Lane.BULK
        self._next_turn()
        self._look_for_room()

    async def wait_for_turn(self, turn: Turn) -> None:
        self._regaining[turn] = taken = asyncio.get_running_loop().create_future()
        try:
            await taken
        finally:
            self._regaining.pop(turn, None)  # if it was broken off before that; after it, `delivered` ends the turn

    # -- details

    def _lane(self, lane: Lane) -> deque[Held] | NewAndOld[Held]:
        return self._bulk if lane is Lane.BULK else self._first

    def _count_bytes(self, claim: Claim, sign: int) -> None:
        size = sign * len(claim.job.envelope.body)
        self._bytes += size
        if claim.job.lane is Lane.BULK:
            self._bulk_bytes += size

    def _has_free_turn(self, lane: Lane) -> bool:
        if len(self._under_way) >= self._concurrency:
            return False
        return lane is not Lane.BULK or self._bulk_under_way < self._most_bulk_turns

    def _next(self) -> Lane | None:
        """Whose turn it is, of those that wait; None: nobody waits, or there is none for who does."""
        first = bool(self._first) and self.has_turn(Lane.TRANSACTIONAL)
        bulk = bool(self._bulk) and self.has_turn(Lane.BULK)
        if first and bulk:
            return Lane.BULK if self._shares.bulk(1) else Lane.TRANSACTIONAL
        if first:
            return Lane.TRANSACTIONAL
        return Lane.BULK if bulk else None

    def _first_regaining(self) -> Turn | None:
        if not self._regaining:
            return None
        return next((turn for turn in self._regaining if self._has_free_turn(turn.lane)), None)

    def _let_the_kept_out_go_on(self) -> None:
        for kept_out in [turn for turn in self._regaining if self.keeps_from(turn.lane)]:
            waits = self._regaining.pop(kept_out)
            kept_out.go_on()
            if not waits.done():
                waits.set_result(None)

    def _next_turn(self) -> None:
        if self._regaining:
            self._let_the_kept_out_go_on()
        turn = self._first_regaining()
        if turn is None:
            self._wake_taker()
            return
        taken = self._regaining.pop(turn)
        turn.take()
        if not taken.done():
            taken.set_result(None)

    def _wake_taker(self) -> None:
        if self._arrival is None or self._arrival.done():
            return
        if (self._first and self.has_turn(Lane.TRANSACTIONAL)) or (self._bulk and self.has_turn(Lane.BULK)):
            self._arrival.set_result(None)

    def _room(self) -> Room:
        if self._bytes >= _BODIES_BYTES:
            return Room(0)
        ahead = min(self._batch, int(self._concurrency * _AHEAD_SECONDS / max(self._seconds_each, 0.0001)))
        waiting = self.waiting + self.soon
        bulk = self._bulk_bytes < _BODIES_BYTES * _BULK_SHARE and not self._bulk_stands
        if bulk and waiting > ahead // 2 >= waiting - self._bulk_soon:
            bulk = False  # It goes on within the time that is taken ahead for, or so it was thought.
        if not bulk:
            waiting -= len(self._bulk) + self._bulk_soon  # It keeps nothing else out.
        if waiting and waiting > ahead // 2:
            return Room(0)
        return Room(max(0, min(self._batch, self._concurrency - len(self._under_way) + ahead - waiting)), bulk)

    @property
    def _bulk_stands(self) -> bool:
        """Bulk mail waits here for longer than was meant, since what is under way of it is slow."""
        waiting = self._bulk
        return bool(waiting) and asyncio.get_running_loop().time() - waiting[0].since > SLOW_SECONDS

    def _look_for_room(self) -> None:
        """Once for all that happens in one round of the event loop: each delivery asks for it several times."""
        if not self._looks and not self._has_room.is_set():
            self._looks = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._looks = False
        if self._room().count:
            self._has_room.set()
