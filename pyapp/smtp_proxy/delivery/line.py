"""The line before one destination: tenants take turns in it, and it knows how long it takes.

Of a tenant's own, transactional mail goes before bulk mail, but for bulk mail's share.

Pure: time is given.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from smtp_proxy.delivery.standstill import UNNOTICED_SECONDS
from smtp_proxy.model.lane import Lane, Shares

if TYPE_CHECKING:
    from collections.abc import Hashable

_PACE_SHARE: Final = 0.1  # of a new measurement in the running mean, at most
# In how long what was measured fades, however many come after it: by number alone, those that were under way together
# while this machine stood for a moment were all that the mean knew. Each counts once, so that a destination has become
# slow for good is learned later than in so many seconds.
_MEMORY_SECONDS: Final = 10.0
_FIRST_GUESS_SECONDS: Final = 0.05
_STALE_SECONDS: Final = 60.0  # of rest, after which what was measured before says nothing any more

Ticket = TypeVar("Ticket")


class _Mean:
    """A running mean of how long transactions take: over some seconds, or over the last few where they are rarer."""

    __slots__ = ("_at", "_count", "seconds")

    def __init__(self, now: float) -> None:
        self.seconds = _FIRST_GUESS_SECONDS
        self._count = 0.0  # of those that it is of; what is long ago counts less
        self._at = now

    def add(self, seconds: float, now: float) -> None:
        self._count = 1 + self._count * math.exp((self._at - now) / _MEMORY_SECONDS)
        self._at = now
        self.seconds += (seconds - self.seconds) * min(_PACE_SHARE, 1 / self._count)

    def copy(self, other: _Mean) -> None:
        self.seconds, self._count, self._at = other.seconds, other._count, other._at


class _Own(Generic[Ticket]):
    """Who waits of one tenant, in each lane: since when, the longest first."""

    __slots__ = ("_bulk", "_first", "_shares")

    def __init__(self) -> None:
        self._first: dict[Ticket, float] = {}  # transactional
        self._bulk: dict[Ticket, float] = {}
        self._shares = Shares()

    def __len__(self) -> int:
        return len(self._first) + len(self._bulk)

    def join(self, lane: Lane, ticket: Ticket, now: float) -> None:
        (self._bulk if lane is Lane.BULK else self._first)[ticket] = now

    def take(self) -> Ticket:
        """The next one; there must be one."""
        first, bulk = self._first, self._bulk
        lane = bulk if not first or (bulk and self._shares.bulk(1)) else first
        ticket = next(iter(lane))
        del lane[ticket]
        return ticket

    def give_up(self, ticket: Ticket) -> int:
        """How many left: 1, or 0 if it was not there."""
        return sum(lane.pop(ticket, None) is not None for lane in (self._first, self._bulk))

    def since(self, moment: float) -> list[Ticket]:
        """Those that have waited since then or longer."""
        return [ticket for lane in (self._first, self._bulk) for ticket, joined in lane.items() if joined <= moment]

    def before(self, lane: Lane) -> int:
        """How many go before one that joins this lane now, about."""
        return len(self) if lane is Lane.BULK else len(self._first)


class Line(Generic[Ticket]):
    """Who waits, by tenant. Times are monotonic seconds, without those in which this process stood still."""

    __slots__ = ("_count", "_each", "_moved_at", "_tenants", "_waiting", "_well", "in_use")

    def __init__(self, now: float) -> None:
        self._tenants: deque[Hashable] = deque()  # in the order of their turns; each has somebody waiting
        self._waiting: dict[Hashable, _Own[Ticket]] = {}
        self._count = 0
        self.in_use = 0
        self._each = _Mean(now)
        self._well = _Mean(now)  # those alone that went well
        self._moved_at = now

    def __bool__(self) -> bool:
        return bool(self._tenants)

    def __len__(self) -> int:
        return self._count

    def join(self, tenant: Hashable, ticket: Ticket, now: float, lane: Lane = Lane.TRANSACTIONAL) -> None:
        """Wait behind the others of this tenant, in this lane."""
        own = self._waiting.get(tenant)
        if own is None:
            own = self._waiting[tenant] = _Own()
            self._tenants.append(tenant)
        own.join(lane, ticket, now)
        self._count += 1

    def take(self) -> Ticket | None:
        """The next one: the first of the tenant whose turn it is."""
        if not self._tenants:
            return None
        tenant = self._tenants.popleft()
        own = self._waiting[tenant]
        ticket = own.take()
        self._count -= 1
        if own:
            self._tenants.append(tenant)
        else:
            del self._waiting[tenant]
        return ticket

    def give_up(self, tenant: Hashable, ticket: Ticket) -> None:
        """Leave without having had a turn."""
        own = self._waiting.get(tenant)
        if own is None:
            return
        self._count -= own.give_up(ticket)
        if not own:
            del self._waiting[tenant]
            self._tenants.remove(tenant)

    def overdue(self, since: float) -> list[Ticket]:
        """Those that have waited since then or longer leave."""
        late: list[Ticket] = []
        for tenant, own in list(self._waiting.items()):
            mine = own.since(since)
            for ticket in mine:
                self.give_up(tenant, ticket)
            late += mine
        return late

    def begin(self, now: float) -> None:
        """A transaction begins: it moves, or it was idle, which says nothing of its pace."""
        if not self.in_use and now - self._moved_at > _STALE_SECONDS:
            self._each, self._well = _Mean(now), _Mean(now)
        self._moved_at = now
        self.in_use += 1

    def end(self, seconds: float | None, now: float, *, well: bool = True) -> None:
        """A transaction ended that took `seconds`; None: it tells nothing of how long they take."""
        self.in_use -= 1
        self._moved_at = now
        if seconds is None:
            return
        self._each.add(seconds, now)
        if well:
            self._well.add(seconds, now)

    def recovered(self) -> None:
        """What failed, and took its time over it, is no measure any more."""
        self._each.copy(self._well)

    def wait_seconds(self, tenant: Hashable, now: float, lane: Lane = Lane.TRANSACTIONAL) -> float:
        """How long one who joins now will wait, by how things go: a line that stands gets longer by itself.

        Of a tenant among others only its own part counts, once for each tenant.
        """
        mine = self._waiting.get(tenant)
        own, tenants = (0 if mine is None else mine.before(lane)), len(self._tenants)
        ahead = min(self._count, own * max(1, tenants) + tenants)
        # Here it is multiplied by those ahead, so a moment in which this process stood is not to be a part of it.
        stood = self.stood_seconds(now) - UNNOTICED_SECONDS
        return (ahead + 1) * max(self._each.seconds, stood) / max(1, self.in_use)

    def stood_seconds(self, now: float) -> float:
        """For how long none has ended, or begun, while some were under way."""
        return now - self._moved_at if self.in_use else 0.0

    def pace_seconds(self, at_once: int) -> float:
        """From the end of one transaction to that of the next, with so many at once that go as well as they can."""
        return self._well.seconds / at_once
