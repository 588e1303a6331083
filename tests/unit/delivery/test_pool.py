"""Whoever waits for a connection is told of one, in whatever order things happen; without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtp_proxy.delivery import pool as pool_module
from smtp_proxy.delivery.connection import Connection
from smtp_proxy.delivery.not_ready import NotReady
from smtp_proxy.delivery.pool import Idle, Pool
from smtp_proxy.delivery.route import Route


class Fake:
    """As much of a connection as a pool looks at."""

    def __init__(self) -> None:
        self.failure: str | None = None
        self.usable = True
        self.messages = 0
        self.idle_since = 0.0
        self.opened_at = asyncio.get_running_loop().time()
        self.on_closed: Callable[[Fake], None] | None = None

    def quit(self) -> None:
        self.usable = False

    def abort(self, why: str) -> None:
        self.failure = why

    async def closed(self) -> None:
        pass


class House:
    """A pool, those that wait for a connection, and those that have one. Steps are by name; what cannot be is not."""

    def __init__(self, connections: int, most_idle: int) -> None:
        route = Route("127.0.0.1", 25, "none", "proxy.example", connections=connections, idle_seconds=3600.0)
        self.pool = Pool(route, Idle(most_idle))
        self.dials: list[asyncio.Future[Fake]] = []
        self.asking: list[asyncio.Task[tuple[Connection, bool]]] = []
        self.held: list[Connection] = []

    async def dial(self, _: Route) -> Connection:
        made: asyncio.Future[Fake] = asyncio.get_running_loop().create_future()
        self.dials.append(made)
        try:
            return cast("Connection", await made)
        finally:
            self.dials.remove(made)

    async def settle(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)
        for task in [task for task in self.asking if task.done()]:
            self.asking.remove(task)
            if not task.cancelled() and task.exception() is None:
                self.held.append(task.result()[0])

    def ask(self) -> None:
        self.asking.append(asyncio.create_task(self.pool.acquire()))

    def ask_for_a_fresh_one(self) -> None:
        self.asking.append(asyncio.create_task(self.pool.acquire(fresh=True)))

    def is_made(self) -> None:
        if made := self._dial_under_way():
            made.set_result(Fake())

    def is_turned_away(self) -> None:
        if made := self._dial_under_way():
            made.set_exception(NotReady("421 too many"))

    def give_back(self) -> None:
        if self.held:
            self.pool.release(self.held.pop(0))

    def fail(self) -> None:
        if self.held:
            broken = self.held.pop(0)
            broken.failure = "it broke"
            self.pool.release(broken)

    def break_off(self) -> None:
        if self.asking:
            self.asking[0].cancel()

    def server_closes(self) -> None:
        if self.pool._idle:
            closed = cast("Fake", self.pool._idle[0])
            closed.failure, closed.usable = "closed", False
            if closed.on_closed is not None:
                closed.on_closed(closed)

    def wears_out(self) -> None:
        if self.pool._idle:
            cast("Fake", self.pool._idle[0]).usable = False

    def _dial_under_way(self) -> asyncio.Future[Fake] | None:
        return next((dial for dial in self.dials if not dial.done()), None)

    @property
    def waiting(self) -> int:
        return sum(not turn.done() for turn in self.pool._waiting)

    def check(self) -> None:
        assert self.pool.open_connections == len(self.pool._idle) + len(self.dials) + len(self.held)
        assert not (self.waiting and self.pool._idle), "somebody waits beside a connection that is free"
        assert not (self.waiting and not self.pool.open_connections), "somebody waits for nothing"


Step = Callable[[House], None]
# The usual ones more often, else hardly anybody waits.
STEPS: list[Step] = [
    House.ask, House.ask, House.is_made, House.is_made, House.give_back, House.give_back, House.ask_for_a_fresh_one,
    House.is_turned_away, House.fail, House.break_off, House.server_closes, House.wears_out,
]  # fmt: skip
FIRST: list[Step] = [House.ask, House.is_made]
# One that must have a new connection was told of the one that is free, and nobody was once it was turned away.
TOLD_IN_VAIN: list[Step] = [
    *FIRST, House.ask, House.ask_for_a_fresh_one, House.ask, House.is_turned_away, House.give_back,
    House.is_turned_away,
]  # fmt: skip


async def live(steps: Sequence[tuple[Step, bool]], connections: int, most_idle: int) -> None:
    """Of each step: whether all that follows from it happens before the next."""
    house = House(connections, most_idle)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_module, "dial", house.dial)
        for step, is_settled in steps:
            step(house)
            if is_settled:
                await house.settle()
                house.check()
        await house.settle()
        house.check()
        for task in house.asking:
            task.cancel()
        await asyncio.gather(*house.asking, return_exceptions=True)
        while house.held:
            house.give_back()
        await house.pool.close(0)


@settings(max_examples=400)
@given(
    st.lists(st.tuples(st.sampled_from(STEPS), st.booleans()), min_size=30, max_size=60),
    st.integers(1, 3),
    st.sampled_from([1, 100]),
)
def test_nobody_waits_beside_one_that_is_free(steps: list[tuple[Step, bool]], connections: int, most_idle: int) -> None:
    asyncio.run(live(steps, connections, most_idle))


@pytest.mark.parametrize(
    "steps",
    [[*FIRST, House.ask, House.give_back, House.is_turned_away], TOLD_IN_VAIN],
    ids=["given back while another is made", "told in vain"],
)
def test_what_once_waited_until_a_connection_was_idle_long(steps: list[Step]) -> None:
    asyncio.run(live([(step, True) for step in steps], 2, 100))


def test_who_is_broken_off_when_told_passes_it_on() -> None:
    settled = [(step, True) for step in [*FIRST, House.ask, House.ask]]
    asyncio.run(live([*settled, (House.give_back, False), (House.break_off, True)], 1, 100))
