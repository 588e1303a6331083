"""The line before one destination: tenants take turns in it, and it knows how long it takes.

Pure: time is given.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

_PACE_SHARE: Final = 0.1  # of a new measurement in the running mean
_FIRST_GUESS_SECONDS: Final = 0.05

Ticket = TypeVar("Ticket")


class Line(Generic[Ticket]):
    """Who waits, by tenant. Times are monotonic seconds."""

    __slots__ = ("_moved_at", "_seconds_each", "_tenants", "_waiting", "in_use")

    def __init__(self, now: float) -> None:
        self._tenants: deque[Hashable] = deque()  # in the order of their turns; each has somebody waiting
        self._waiting: dict[Hashable, dict[Ticket, float]] = {}  # since when; the longest first
        self.in_use = 0
        self._seconds_each = _FIRST_GUESS_SECONDS
        self._moved_at = now

    def __bool__(self) -> bool:
        return bool(self._tenants)

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values())) if self._waiting else 0

    def join(self, tenant: Hashable, ticket: Ticket, now: float) -> None:
        """Wait behind the others of this tenant."""
        if tenant not in self._waiting:
            self._waiting[tenant] = {}
            self._tenants.append(tenant)
        self._waiting[tenant][ticket] = now

    def take(self) -> Ticket | None:
        """The next one: the first of the tenant whose turn it is."""
        if not self._tenants:
            return None
        tenant = self._tenants.popleft()
        tickets = self._waiting[tenant]
        ticket = next(iter(tickets))
        del tickets[ticket]
        if tickets:
            self._tenants.append(tenant)
        else:
            del self._waiting[tenant]
        return ticket

    def give_up(self, tenant: Hashable, ticket: Ticket) -> None:
        """Leave without having had a turn."""
        tickets = self._waiting.get(tenant, {})
        tickets.pop(ticket, None)
        if not tickets and tenant in self._waiting:
            del self._waiting[tenant]
            self._tenants.remove(tenant)

    def overdue(self, since: float) -> list[Ticket]:
        """Those that have waited since then or longer leave."""
        late: list[Ticket] = []
        for tenant, tickets in list(self._waiting.items()):
            mine = [ticket for ticket, joined in tickets.items() if joined <= since]
            for ticket in mine:
                self.give_up(tenant, ticket)
            late += mine
        return late

    def begin(self, now: float) -> None:
        """A transaction begins."""
        if not self.in_use:
            self._moved_at = now  # it stood idle, which says nothing of its pace
        self.in_use += 1

    def end(self, seconds: float, now: float) -> None:
        """A transaction ended that took `seconds`."""
        self.in_use -= 1
        self._moved_at = now
        self._seconds_each += _PACE_SHARE * (seconds - self._seconds_each)

    def wait_seconds(self, tenant: Hashable, now: float) -> float:
        """How long one who joins now will wait, by how things go: a line that stands gets longer by itself.

        Of a tenant among others only its own part counts, once for each tenant.
        """
        own = len(self._waiting.get(tenant, ()))
        ahead = min(len(self), own * max(1, len(self._tenants)) + len(self._tenants))
        each = max(self._seconds_each, now - self._moved_at) if self.in_use else self._seconds_each
        return (ahead + 1) * each / max(1, self.in_use)
