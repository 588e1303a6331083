"""What waits of one lane, in two lines that take turns: what has just come, and what is older."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator


class _HasAge(Protocol):
    is_new: bool


T = TypeVar("T", bound=_HasAge)


class NewAndOld(Generic[T]):
    """First in, first out within each line; while both have some, every other one is new.

    So new mail waits behind as much old mail as there is of itself, however much of that is due at once after an
    outage; and a flood of new mail leaves half of the places to what is tried again.
    """

    def __init__(self) -> None:
        self._new: deque[T] = deque()
        self._old: deque[T] = deque()
        self._old_is_next = False

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def __iter__(self) -> Iterator[T]:
        yield from self._new
        yield from self._old

    def append(self, one: T) -> None:
        (self._new if one.is_new else self._old).append(one)

    def popleft(self) -> T:
        """The next one. Raises IndexError where nothing waits."""
        if self._new and self._old:
            self._old_is_next = not self._old_is_next
            return (self._new if self._old_is_next else self._old).popleft()
        return (self._new or self._old).popleft()

    def clear(self) -> None:
        self._new.clear()
        self._old.clear()
