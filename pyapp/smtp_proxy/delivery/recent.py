"""Dictionaries that remember so much and no more, in the order of use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections import OrderedDict
    from collections.abc import Callable

Key = TypeVar("Key")
Value = TypeVar("Value")

# So many are looked at for each one that comes: what is kept grows while none may go, and shrinks again afterwards.
LOOKED_AT: Final = 8


def make_room(kept: OrderedDict[Key, Value], most: int, may_go: Callable[[Value], bool]) -> list[tuple[Key, Value]]:
    """Before one is added to `most` or more: those that go, of the few that were longest unused.

    Who may not go is looked at again when all others have been, so each addition costs the same, however many are kept.
    """
    gone: list[tuple[Key, Value]] = []
    for _ in range(min(LOOKED_AT, len(kept))):
        if len(kept) < most:
            break
        key, value = next(iter(kept.items()))
        if may_go(value):
            gone.append((key, kept.pop(key)))
        else:
            kept.move_to_end(key)
    return gone
