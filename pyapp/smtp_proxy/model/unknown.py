"""Numbers in the database that a later release put there: shown as what they are, and no error.

Two releases run side by side during an upgrade, and for a while after one that is taken back.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar

_E = TypeVar("_E", bound=IntEnum)


def unknown_member(kind: type[_E], value: object) -> _E | None:
    """A member for a number that has none, named UNKNOWN_n; for `_missing_`. It is not among the members of `kind`."""
    if not isinstance(value, int):
        return None
    member = int.__new__(kind, value)
    member._name_ = f"UNKNOWN_{value}"
    member._value_ = value
    return member
