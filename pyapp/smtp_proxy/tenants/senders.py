"""Which reverse-paths a credential may use (RFC 6409 6.1): the list that an operator keeps.

What a pattern is and how it is compared is the core's to say (`core_rs/proto/src/senders.rs`); here is one place for
what makes a list. No pattern at all means any sender, so a list is never emptied in passing.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtp_proxy.core import sender_pattern
from smtp_proxy.errors import InvalidValue

# The core looks through them at every MAIL.
_PATTERNS_MAX = 1000


def checked(given: Sequence[str]) -> tuple[str, ...]:
    """The patterns in the spelling in which they are kept, each once, in the order given.

    Raises:
        InvalidValue: names the one that is none, or there are too many.
    """
    try:
        kept = tuple(dict.fromkeys(sender_pattern(pattern) for pattern in given))
    except ValueError as error:
        raise InvalidValue(str(error)) from None
    if len(kept) > _PATTERNS_MAX:
        raise InvalidValue(f"a credential has at most {_PATTERNS_MAX} sender patterns, these are {len(kept)}")
    return kept


def changed(current: Sequence[str], add: Sequence[str], remove: Sequence[str]) -> tuple[str, ...]:
    """The list after adding and removing.

    Raises:
        InvalidValue: a pattern is none; what is to be removed is not there; nothing would be left.
    """
    gone = checked(remove)
    if missing := [pattern for pattern in gone if pattern not in current]:
        raise InvalidValue(f"{', '.join(missing)}: not among the allowed senders, which are {shown(current)}")
    left = checked([*(pattern for pattern in current if pattern not in gone), *add])
    if gone and not left:
        raise InvalidValue("no sender would be left, and none listed means any: use --any if that is meant, else --set")
    return left


def shown(patterns: Sequence[str]) -> str:
    """The list in words."""
    return ", ".join(patterns) or "any"
