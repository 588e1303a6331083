"""Connections to one next hop: few, reused, and never more than `route.connections`.

The most recently used connection is used again first, so that what is not needed grows idle and says QUIT. A caller
that finds all in use waits its turn. When a connection cannot be made while others work, the caller waits for one of
those; when none is left, everybody waiting is told the same at once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from smtp_proxy.delivery.dialogue import dial
from smtp_proxy.delivery.not_ready import NotReady

if TYPE_CHECKING:
    from smtp_proxy.delivery.connection import Connection
    from smtp_proxy.delivery.route import Route


class Idle:
    """The connections of all pools that wait to be used again: `most` at a time, the longest idle says QUIT first.

    A sender to many domains by MX leaves one behind with each, which would use up the descriptors of the process.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._owners: OrderedDict[Connection, Pool] = OrderedDict()

    def __len__(self) -> int:
        return len(self._owners)

    def add(self, connection: Connection, owner: Pool) -> None:
        self._owners[connection] = owner
        if len(self._owners) > self._most:
            longest, its_owner = next(iter(self._owners.items()))
            its_owner.let_go(longest)

    def remove(self, connection: Connection) -> None:
        self._owners.pop(connection, None)


class Pool:
    """The connections to one next hop."""

    def __init__(self, route: Route, idle_of_all: Idle | None = None) -> None:
        self._route = route
        self._idle_of_all = Idle(route.connections) if idle_of_all is None else idle_of_all
        self._loop = asyncio.get_running_loop()
        self._idle: deque[Connection] = deque()  # the longest idle first
        self._open = 0  # in use, idle or being made
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._reaper: asyncio.TimerHandle | None = None
        self._leaving: set[Connection] = set()

    @property
    def open_connections(self) -> int:
        """How many are in use, idle or being made."""
        return self._open

    async def acquire(self, *, fresh: bool = False) -> tuple[Connection, bool]:
        """A ready connection, and whether it has been used before. `fresh`: only a new one will do.

        Raises NotReady.
        """
        while True:
            if fresh:
                self._make_room()
                if self._idle:
                    self._next_please()  # it may have been told of this one, for which others have use
            elif (idle := self._take_idle()) is not None:
                return idle, True
            if self._open < self._route.connections:
                try:
                    return await self._make(), False
                except NotReady as trouble:
                    if not self._open:
                        self._tell_everybody(trouble)
                        raise
                    if fresh:
                        raise
                    if self._idle:
                        continue  # given back meanwhile, when nobody waited who could have been told
            await self._wait_turn()

    def release(self, connection: Connection) -> None:
        """Give it back. It is kept if it can serve again."""
        if connection.failure is not None:
            self._forget(connection)
        elif not connection.usable or self._has_served(connection):
            self._say_goodbye(connection)
        else:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)
            self._idle_of_all.add(connection, self)
            self._next_please()
            if self._reaper is None:
                self._reaper = self._loop.call_later(self._route.idle_seconds, self._reap)

    def let_go(self, connection: Connection) -> None:
        """Others have more use for its descriptor: one that is idle says QUIT."""
        self._idle.remove(connection)
        self._idle_of_all.remove(connection)
        self._say_goodbye(connection)

    async def close(self, timeout_seconds: float = 2.0) -> None:
        """QUIT on all that are idle, and wait a moment for them to be gone."""
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        while self._idle:
            self._say_goodbye(self._longest_idle())
        leaving = [asyncio.ensure_future(connection.closed()) for connection in self._leaving]
        if leaving:
            _, late = await asyncio.wait(leaving, timeout=timeout_seconds)
            for waiting in late:
                waiting.cancel()
            for connection in list(self._leaving):
                connection.abort("closed")

    # -- details

    def _has_served(self, connection: Connection) -> bool:
        return (
            connection.messages >= self._route.messages_per_connection
            or self._loop.time() >= connection.opened_at + self._route.connection_max_seconds
        )

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            self._idle_of_all.remove(connection)
            if connection.usable and not self._has_served(connection):
                return connection
            self._say_goodbye(connection)
        return None

    def _make_room(self) -> None:
        """A fresh one is wanted: an idle one gives way. It is as old as the one that has just failed its user."""
        if self._idle and self._open >= self._route.connections:
            self._say_goodbye(self._longest_idle())

    def _longest_idle(self) -> Connection:
        connection = self._idle.popleft()
        self._idle_of_all.remove(connection)
        return connection

    async def _make(self) -> Connection:
        self._open += 1
        try:
            connection = await dial(self._route)
        except NotReady:
            self._open -= 1  # and nobody is asked to try the same at once
            raise
        except BaseException:
            self._open -= 1
            self._next_please()
            raise
        connection.on_closed = self._closed
        return connection

    async def _wait_turn(self) -> None:
        turn = self._loop.create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._next_please()  # the turn was given and is passed on
            raise

    def _next_please(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _tell_everybody(self, trouble: NotReady) -> None:
        waiting, self._waiting = self._waiting, deque()
        for turn in waiting:
            if not turn.done():
                turn.set_exception(NotReady(str(trouble), trouble.reply, operator=trouble.operator))

    def _say_goodbye(self, connection: Connection) -> None:
        if connection.failure is None:
            connection.quit()
            self._leaving.add(connection)
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        """No longer ours to count; a place is free."""
        if connection.on_closed is not None and connection not in self._leaving:
            connection.on_closed = None
        self._open -= 1
        self._next_please()

    def _closed(self, connection: Connection) -> None:
        """The socket is gone: one that said goodbye, or an idle one that the server closed."""
        if connection in self._leaving:
            self._leaving.discard(connection)
        elif connection in self._idle:
            self._idle.remove(connection)
            self._idle_of_all.remove(connection)
            self._forget(connection)

    def _reap(self) -> None:
        self._reaper = None
        now = self._loop.time()
        while self._idle and self._idle[0].idle_since + self._route.idle_seconds <= now:
            self._say_goodbye(self._longest_idle())
        if self._idle:
            self._reaper = self._loop.call_at(self._idle[0].idle_since + self._route.idle_seconds, self._reap)
