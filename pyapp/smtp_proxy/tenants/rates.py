"""A sliding minute of one tenant, and when the next message may go.

What went out is kept by the second, and what is still to go as well: a message that does not fit now is given the
first second in which it does, behind all that were given one before it. So never more than the limit goes in any
sixty seconds, however they are laid; and what is turned away or held takes nothing.

Pure. `stream/limits.py` does the same in Redis for the whole fleet; both pass the same test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# Two moments that lie less than 60 s apart lie at most so many whole seconds apart.
WINDOW_SECONDS: Final = 60
_ANY: Final = 1 << 60


class Ledger:
    """What one tenant sent and is to send. The limits come with each call, since an operator may change them."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, int]] = []  # second, messages, recipients; oldest first

    def __bool__(self) -> bool:
        return bool(self._entries)

    def reserve(
        self,
        now: float,
        recipients: Sequence[int],
        *,
        messages_per_minute: int | None,
        recipients_per_minute: int | None,
        most_ahead_seconds: float,
    ) -> list[float]:
        """In how many seconds each message may go, 0: now. One that would go later than allowed takes nothing.

        Args:
            now: seconds, of any clock that does not go back.
            recipients: how many each message has; one with more than the limit needs a whole minute's.
            messages_per_minute: None: any number.
            recipients_per_minute: None: any number.
            most_ahead_seconds: what a message may be put off.
        """
        most_messages, most_recipients = messages_per_minute or _ANY, recipients_per_minute or _ANY
        this_second = int(now)
        self.forget(now)
        entries = self._entries
        at = max(this_second, entries[-1][0]) if entries else this_second
        window = _Window(entries, at)
        answers: list[float] = []
        for count in recipients:
            cost = min(count, most_recipients)
            fits = window.first_fit(entries, most_messages - 1, most_recipients - cost)
            delay = 0.0 if fits.at == this_second else fits.at - now
            answers.append(delay)
            if delay <= most_ahead_seconds:
                window = fits
                window.book(entries, cost)
        return answers

    def forget(self, now: float) -> None:
        """Drop what is too old to matter."""
        oldest = int(now) - WINDOW_SECONDS
        keep = next((n for n, entry in enumerate(self._entries) if entry[0] >= oldest), len(self._entries))
        del self._entries[:keep]


class _Window:
    """The minute that ends with the second `at`: from which entry on, and their sums."""

    __slots__ = ("at", "first", "messages", "recipients")

    def __init__(self, entries: Sequence[tuple[int, int, int]], at: int) -> None:
        self.at = at
        self.first = next((n for n, entry in enumerate(entries) if entry[0] >= at - WINDOW_SECONDS), len(entries))
        self.messages = sum(entry[1] for entry in entries[self.first :])
        self.recipients = sum(entry[2] for entry in entries[self.first :])

    def first_fit(self, entries: Sequence[tuple[int, int, int]], messages: int, recipients: int) -> _Window:
        """The first window, from this one on, that holds no more than these."""
        fits = self._copy()
        while fits.messages > messages or fits.recipients > recipients:
            fits.at = entries[fits.first][0] + WINDOW_SECONDS + 1
            while fits.first < len(entries) and entries[fits.first][0] < fits.at - WINDOW_SECONDS:
                fits.messages -= entries[fits.first][1]
                fits.recipients -= entries[fits.first][2]
                fits.first += 1
        return fits

    def book(self, entries: list[tuple[int, int, int]], recipients: int) -> None:
        """One more message in the second `at`, which is the last one that has any."""
        self.messages += 1
        self.recipients += recipients
        if entries and entries[-1][0] == self.at:
            _, messages, before = entries[-1]
            entries[-1] = (self.at, messages + 1, before + recipients)
        else:
            entries.append((self.at, 1, recipients))

    def _copy(self) -> _Window:
        copy = object.__new__(_Window)
        copy.at, copy.first, copy.messages, copy.recipients = self.at, self.first, self.messages, self.recipients
        return copy
