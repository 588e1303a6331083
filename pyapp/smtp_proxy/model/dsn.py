"""What a client asked to be told of its message: delivery status notifications (RFC 3461 4).

ENVID and ORCPT are kept as they were written (xtext), since a relay passes on the same value (5.2.1).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import TypeAlias, TypeVar

# As it comes over the border, for an envelope that asked for anything: RET, ENVID, and NOTIFY with ORCPT of each
# recipient; None is what was not given.
DsnRow: TypeAlias = tuple[int | None, str | None, list[tuple[int | None, str | None]]]


class Ret(IntEnum):
    """How much of the message a report of failure returns (RFC 3461 4.3)."""

    FULL = 1
    HDRS = 2


class Notify(IntFlag):
    """When the sender wants to hear of a recipient (RFC 3461 4.1)."""

    NEVER = 0
    SUCCESS = 1
    FAILURE = 2
    DELAY = 4

    @property
    def keywords(self) -> str:
        """As NOTIFY says it."""
        given = [word.name for word in (Notify.SUCCESS, Notify.FAILURE, Notify.DELAY) if word in self]
        return ",".join(str(name) for name in given) or "NEVER"


_Asked = TypeVar("_Asked", Ret, Notify)


def optional(kind: type[_Asked], number: int | None) -> _Asked | None:
    """What was given, by its number, or None."""
    return None if number is None else kind(number)
