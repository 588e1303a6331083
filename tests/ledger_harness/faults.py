"""What can break. Each fault breaks one thing, waits a while, and mends it; what may get lost with it, it says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ledger_harness.clock import FakeClock
from ledger_harness.proxy import Wire
from ledger_harness.sink import BEHAVIOURS, GOOD, Sink
from ledger_harness.world import LEASE_SECONDS, WORKERS, World

HOUR_SECONDS = 3600
AHEAD = "clock an hour ahead"
_NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Fault:
    """`seconds` bounds how long it lasts, chosen at random.

    `hides`: workers whose outcomes may be lost before they are recorded. `delays`: outcomes wait in their worker while
    it lasts. `crashes`: Postgres loses what it has committed and not flushed.
    """

    name: str
    break_it: Callable[[World, Sink], Awaitable[None]]
    mend_it: Callable[[World, Sink], Awaitable[None]]
    seconds: tuple[float, float]
    hides: frozenset[str] = _NOBODY
    delays: bool = False
    crashes: bool = False

    async def happen(self, world: World, sink: Sink, chance: random.Random) -> None:
        await self.break_it(world, sink)
        try:
            await asyncio.sleep(chance.uniform(*self.seconds))
        finally:
            await self.mend_it(world, sink)


def possible(world: World) -> list[Fault]:
    """All that can be done on this machine."""
    faults = [
        _killed("ingress"),
        _killed("worker-a"),
        _killed("worker-b"),
        _sweeper_killed(),
        *_postgres(),
        *_valkey(),
        *_whole_cluster(world),
        *(_cut(name, wire) for name in world.links for wire in (Wire.CUT, Wire.STALLED, Wire.DEAF)),
        *(_misbehaving(behaviour) for behaviour in BEHAVIOURS),
    ]
    if world.disk.can_be_full:
        faults.append(_disk_full())
    if FakeClock.library is not None:
        faults += [_clock(name, seconds) for name in world.clocks for seconds in (HOUR_SECONDS, -HOUR_SECONDS)]
    return faults


async def _nothing(_: World, __: Sink) -> None:
    pass


def _killed(name: str) -> Fault:
    async def kill(world: World, _: Sink) -> None:
        world.services[name].kill()

    async def start(world: World, _: Sink) -> None:
        world.services[name].start()

    return Fault(f"kill -9 of {name}", kill, start, (0.2, 3.0), hides=WORKERS & {name})


def _sweeper_killed() -> Fault:
    killed: list[str] = []

    async def kill(world: World, _: Sink) -> None:
        leader = await world.sweeper()
        killed.append(leader.name)
        leader.kill()

    async def start(world: World, _: Sink) -> None:
        world.services[killed.pop()].start()

    return Fault("kill -9 of the sweeper's leader", kill, start, (0.5, 3.0), hides=WORKERS)


def _postgres() -> list[Fault]:
    async def kill(world: World, _: Sink) -> None:
        await asyncio.to_thread(world.postgres.kill)

    async def stop(world: World, _: Sink) -> None:
        await asyncio.to_thread(world.postgres.stop)

    async def start(world: World, _: Sink) -> None:
        await asyncio.to_thread(world.postgres.start)

    async def pause(world: World, _: Sink) -> None:
        world.postgres.pause()

    async def resume(world: World, _: Sink) -> None:
        world.postgres.resume()

    return [
        Fault("kill -9 of Postgres", kill, start, (0.1, 2.0), delays=True, crashes=True),
        Fault("restart of Postgres", stop, start, (0.0, 2.0), delays=True),
        Fault("Postgres stands still", pause, resume, (1.0, 4.0), delays=True),
    ]


def _valkey() -> list[Fault]:
    async def flush(world: World, _: Sink) -> None:
        await asyncio.to_thread(world.valkey.command, b"FLUSHALL")

    async def kill(world: World, _: Sink) -> None:
        world.valkey.kill()

    async def start(world: World, _: Sink) -> None:
        await asyncio.to_thread(world.valkey.start)

    async def pause(world: World, _: Sink) -> None:
        world.valkey.pause()

    async def resume(world: World, _: Sink) -> None:
        world.valkey.resume()

    return [
        Fault("FLUSHALL", flush, _nothing, (0.0, 0.5)),
        Fault("kill -9 of Valkey, back at once and empty", kill, start, (0.0, 0.1)),
        Fault("kill -9 of Valkey, away for long", kill, start, (2.0, 6.0)),
        Fault("Valkey stands still", pause, resume, (1.0, 4.0)),
    ]


def _whole_cluster(world: World) -> list[Fault]:
    """The others are for one node of a cluster, in turn."""

    async def kill(world: World, _: Sink) -> None:
        world.valkey.kill_all()

    async def start(world: World, _: Sink) -> None:
        await asyncio.to_thread(world.valkey.start)

    return [Fault("kill -9 of every Valkey node", kill, start, (0.5, 4.0))] if world.is_cluster else []


def _cut(name: str, wire: Wire) -> Fault:
    async def cut(world: World, _: Sink) -> None:
        world.links[name].set(wire)

    async def mend(world: World, _: Sink) -> None:
        world.links[name].set(Wire.WHOLE)

    # A worker without Postgres for longer than its lease loses its claims, and with them what it could not record.
    longest = LEASE_SECONDS + 3.0 if name.startswith("worker-") else 5.0
    hides = WORKERS if name == "workers to sink" else WORKERS & {name.partition(" ")[0]}
    return Fault(f"network {wire.value}: {name}", cut, mend, (1.0, longest), hides=hides)


def _misbehaving(behaviour: str) -> Fault:
    async def misbehave(_: World, sink: Sink) -> None:
        sink.behaviour = behaviour

    async def behave(_: World, sink: Sink) -> None:
        sink.behaviour = GOOD

    return Fault(f"sink: {behaviour}", misbehave, behave, (1.5, 4.0))


def _disk_full() -> Fault:
    async def fill(world: World, _: Sink) -> None:
        await asyncio.to_thread(world.disk.fill)

    async def free(world: World, _: Sink) -> None:
        world.disk.free()
        # Postgres panics when its log can not grow, as it should; whoever watches it starts it again.
        await asyncio.to_thread(world.postgres.kill)
        await asyncio.to_thread(world.postgres.start)

    return Fault("disk full for Postgres", fill, free, (2.0, 5.0), delays=True, crashes=True)


def _clock(name: str, seconds: int) -> Fault:
    async def jump(world: World, _: Sink) -> None:
        world.clocks[name].shift(seconds)

    async def jump_back(world: World, _: Sink) -> None:
        world.clocks[name].shift(0)

    # Postgres's clock says when a lease has run out.
    hides = WORKERS if name == "postgres" else _NOBODY
    way = AHEAD if seconds > 0 else "clock an hour back"
    return Fault(f"{way}: {name}", jump, jump_back, (3.5, 6.0), hides=hides)
