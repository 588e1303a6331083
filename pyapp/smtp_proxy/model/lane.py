"""Which mail goes first: what somebody waits for, before what goes to many. And in which shares."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

# Of what is taken while both lanes have some, at least so much is bulk, so that it is never starved.
BULK_SHARE: Final = 0.2


class Lane(IntEnum):
    """The numbers lie in the database (`deliveries.lane`) and cross the border to the core."""

    TRANSACTIONAL = 0
    BULK = 1

    @classmethod
    def _missing_(cls, value: object) -> Lane | None:
        """A lane that a later release put there is none that is waited for less."""
        return cls.TRANSACTIONAL if isinstance(value, int) else None


class Shares:
    """How many places bulk mail gets of those that are given out. Pure; what is less than a place is kept for later."""

    def __init__(self, bulk_share: float = BULK_SHARE) -> None:
        self._share = bulk_share
        self._due = 0.0

    def bulk(self, places: int) -> int:
        """How many of the next `places` are kept for bulk mail; to be asked while both lanes have some."""
        self._due += places * self._share
        whole = min(places, int(self._due + 1e-9))
        self._due -= whole
        return whole
