"""Numbers in the database that a later release put there: shown as what they are, and no error.

Two releases run side by side during an upgrade, and for a while after one that is taken back.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class Tolerant(IntEnum):
    """A number that has no member here is one of a later release: `UNKNOWN_5`, which is not among the members."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_{value}"
        member._value_ = value
        return member

    def __deepcopy__(self, memo: object) -> Self:
        """Itself, as of all that never changes: Python below 3.11.4 looks for a member of that name."""
        return self
