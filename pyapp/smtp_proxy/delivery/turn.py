"""The worker's turn that a delivery holds, and lends to another while it waits for its destination."""

from __future__ import annotations

from typing import Final, Protocol


class Turn(Protocol):
    """One of `worker_concurrency`."""

    def lend(self, seconds: float) -> bool:
        """What follows is a wait of about so many seconds. False: too many wait already, so this one may not."""
        ...

    async def regain(self) -> None:
        """Go on: wait until a turn is free again."""
        ...


class FreeTurn:
    """Of a delivery that nobody waits behind: a test's, or a tool's."""

    def lend(self, seconds: float) -> bool:
        return True

    async def regain(self) -> None:
        return


FREE_TURN: Final = FreeTurn()


class SharedTurn:
    """One turn for the legs of a job: lent while all that are left wait."""

    def __init__(self, turn: Turn, legs: int) -> None:
        self._turn = turn
        self._active = legs
        self._lent = False
        self._seconds = 0.0

    def lend(self, seconds: float) -> bool:
        if self._active == 1 and not self._turn.lend(seconds):
            return False
        self._active -= 1
        self._lent = self._lent or not self._active
        self._seconds = seconds
        return True

    async def regain(self) -> None:
        self._active += 1
        if self._lent:
            self._lent = False
            await self._turn.regain()

    def ended(self) -> None:
        """One leg is through."""
        self._active -= 1
