"""One run: mail at a pace, faults at random moments, and at the end the account."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger_harness.account import QUIET, Account, Arrivals, Copy, Ledger, Period, Rules, settle
from ledger_harness.faults import AHEAD, HOUR_SECONDS, Fault, possible
from ledger_harness.senders import RECIPIENTS_AT, Applications
from ledger_harness.sink import Sink
from ledger_harness.world import DATA_SECONDS, LEASE_SECONDS, World
from smtp_proxy.model.policy import OnUnknown

# Longer than what is kept off a busy next hop waits (delivery/governor.py: 120 s and a quarter).
_DRAIN_SECONDS = 180.0
_SAY_SECONDS = 15.0


@dataclass(frozen=True)
class Plan:
    """What to do. The same seed gives the same faults in the same order, at the same distances."""

    seed: int
    seconds: float
    min_messages: int = 0
    per_second: float = 60.0
    connections: int = 12
    choose: Callable[[Fault], bool] = lambda _: True
    only: str = ""  # of these, faults whose name contains this
    gap_seconds: tuple[float, float] = (0.5, 2.5)
    disk_mb: int = 700
    on_unknown: OnUnknown = OnUnknown.RETRY  # the tenant's policy
    cluster_shards: int = 0  # 0: one Valkey; else a cluster of three nodes, and so many shards
    worker_b: Path | None = None  # another release, for one of the workers
    say: Callable[[str], None] = print


def order(faults: Sequence[Fault], chance: random.Random) -> list[Fault]:
    """Shuffled, but one of each family (the word before the colon) comes before the second of any."""
    shuffled = list(faults)
    chance.shuffle(shuffled)
    seen: dict[str, int] = {}
    ranked = []
    for fault in shuffled:
        family = fault.name.partition(":")[0]
        seen[family] = seen.get(family, 0) + 1
        ranked.append((seen[family], fault))
    return [fault for _, fault in sorted(ranked, key=lambda pair: pair[0])]


async def run(folder: Path, plan: Plan) -> Account:
    """Raises AssertionError when what waits does not arrive, or a process of ours ends by itself."""
    plan.say(f"seed {plan.seed}: the same again with --seed {plan.seed}")
    arrivals = Arrivals()
    with contextlib.closing(Ledger(folder / "ledger.jsonl")) as ledger:
        came = await _mail_and_faults(folder, plan, ledger, arrivals)
    rules = Rules(
        grace_seconds=3.0,
        data_seconds=DATA_SECONDS,
        holds=plan.on_unknown is OnUnknown.HOLD,
        unledgered="worker-b" if plan.worker_b else "",
    )
    account = settle(ledger.acknowledged, arrivals, came.periods, came.held, came.unknown, rules)
    plan.say(f"{came.said}; seed {plan.seed}")
    plan.say(account.markdown())
    return account


@dataclass(frozen=True)
class _Came:
    """What came of it."""

    periods: list[Period]
    held: set[Copy]  # at the end
    unknown: dict[Copy, int]  # attempts of unknown outcome that Postgres has
    said: str  # how much was sent, in words


async def _mail_and_faults(folder: Path, plan: Plan, ledger: Ledger, arrivals: Arrivals) -> _Came:
    chance = random.Random(plan.seed)
    sink = Sink(arrivals, random.Random(plan.seed + 1))
    async with sink.running():
        world = World(
            folder,
            sink.port,
            disk_mb=plan.disk_mb,
            on_unknown=plan.on_unknown,
            cluster_shards=plan.cluster_shards,
            worker_b=plan.worker_b,
        )
        async with world.running():
            applications = Applications(
                world.links["application to ingress"].port,
                ledger,
                connections=plan.connections,
                per_second=plan.per_second,
            )
            applications.start()
            try:
                periods = await _inject(world, sink, plan, chance, applications)
            finally:
                await applications.stop()
            was_ahead = any(period.name.startswith(AHEAD) for period in periods)
            held = await _drain(world, ledger, arrivals, plan, was_ahead=was_ahead)
            for service in world.services.values():
                assert service.stayed, f"{service.name} ended by itself:\n{service.tail()}"
            unknown = await _unknown(world, arrivals)
    said = f"{applications.messages} messages acknowledged, {applications.tries} tried"
    return _Came(periods, held, unknown, said)


async def _inject(
    world: World, sink: Sink, plan: Plan, chance: random.Random, applications: Applications
) -> list[Period]:
    faults = [fault for fault in possible(world) if plan.only in fault.name and plan.choose(fault)]
    assert faults, "no fault was chosen"
    began = time.monotonic()
    periods = [Period(QUIET, began, began)]
    waiting: list[Fault] = []
    while time.monotonic() < began + plan.seconds or applications.messages < plan.min_messages:
        assert time.monotonic() < began + 2 * plan.seconds + 60, f"too slow\n{world.logs()}"
        await asyncio.sleep(chance.uniform(*plan.gap_seconds))
        waiting = waiting or order(faults, chance)
        fault = waiting.pop(0)
        plan.say(f"{time.monotonic() - began:7.1f} s  {applications.messages:6d} acknowledged  {fault.name}")
        period = Period(
            fault.name, time.monotonic(), float("inf"), hides=fault.hides, delays=fault.delays, crashes=fault.crashes
        )
        periods[-1].ended = period.began
        periods.append(period)
        await fault.happen(world, sink, chance)
        period.healed = time.monotonic() + (LEASE_SECONDS if fault.hides else 0)
    return periods


async def _drain(world: World, ledger: Ledger, arrivals: Arrivals, plan: Plan, *, was_ahead: bool) -> set[Copy]:
    """Wait until everything has arrived or is held, and then for what might come twice; returns what is held."""
    began = said = time.monotonic()
    deadline = began + _DRAIN_SECONDS
    held: set[Copy] = set()
    while missing := ledger.acknowledged.keys() - arrivals.taken.keys() - arrivals.refused - held:
        if time.monotonic() > min(deadline, said + _SAY_SECONDS):
            said = time.monotonic()
            plan.say(f"{said - began:7.1f} s  {len(missing)} not there yet; {await _states(world, missing)}")
            if was_ahead and await _wait_for_the_hour(world, missing):
                plan.say("what is left came while a clock was an hour ahead and is due then: letting that hour pass")
                world.clocks["postgres"].shift(HOUR_SECONDS)
                was_ahead, deadline = False, said + _DRAIN_SECONDS
        if time.monotonic() > deadline:
            states = await _states(world, missing)
            plan.say(f"{len(missing)} did not arrive, such as {sorted(missing)[:3]}; {states}\n{world.logs()}")
            break
        await asyncio.sleep(0.5)
        held = await _held(world, ledger)
    await asyncio.sleep(LEASE_SECONDS + 2.0)
    return await _held(world, ledger)


async def _held(world: World, ledger: Ledger) -> set[Copy]:
    """For an outcome that is on record as unknown, and nothing else. Recipients are unique, so each names its copy."""
    rows = await world.sql(
        "SELECT recipient FROM deliveries d WHERE state = 4 AND EXISTS (SELECT FROM attempts a WHERE a.outcome = 4"
        " AND a.envelope_id = d.envelope_id AND a.recipient_number = d.recipient_number AND a.finished_at IS NOT NULL)"
    )
    recipients = {row["recipient"] for row in rows}
    return {copy for copy in ledger.acknowledged if copy[1] in recipients} if recipients else set()


async def _unknown(world: World, arrivals: Arrivals) -> dict[Copy, int]:
    """How many attempts of each duplicated copy Postgres has as of unknown outcome.

    A report of ours has its envelope's id in its Message-ID, and goes to a sender, who has many of them.
    """
    rows = await world.sql(
        "SELECT d.envelope_id::text AS id, d.recipient, count(*) AS count FROM attempts a"
        " JOIN deliveries d USING (envelope_id, recipient_number)"
        " WHERE a.outcome = 4 AND a.finished_at IS NOT NULL GROUP BY 1, 2"
    )
    of_mail = {row["recipient"]: row["count"] for row in rows}
    of_reports = {(row["id"], row["recipient"]): row["count"] for row in rows}
    found = {}
    for (message_id, recipient), taken in arrivals.taken.items():
        if len(taken) > 1:
            report_id = message_id.strip("<>").partition("@")[0]
            is_mail = recipient.endswith(RECIPIENTS_AT)
            count = of_mail.get(recipient, 0) if is_mail else of_reports.get((report_id, recipient), 0)
            found[message_id, recipient] = count
    return found


async def _wait_for_the_hour(world: World, missing: set[Copy]) -> bool:
    """Is all that is missing due only when the time comes that a wrong clock had shown?

    Mail that is to be tried again then, and leases that run out then: a claim in the first second after the clock was
    right again, whose answer the worker never heard, is one that nobody knows of.
    """
    rows = await world.sql(
        "SELECT count(*) FROM deliveries WHERE recipient = ANY ($1::text[])"
        " AND state < 2 AND greatest(sweep_at, next_attempt_at)"
        " BETWEEN now() + interval '30 minutes' AND now() + interval '70 minutes'",
        [copy[1] for copy in missing],
    )
    return bool(rows[0]["count"] == len(missing) > 0)


async def _states(world: World, missing: set[Copy]) -> str:
    rows = await world.sql(
        "SELECT state, count(*), max(attempt_count) AS attempts, max(next_attempt_at - now()) AS due"
        " FROM deliveries WHERE recipient = ANY ($1::text[]) GROUP BY state",
        [copy[1] for copy in missing],
    )
    found = [f"{r['count']} in state {r['state']}, tried {r['attempts']} times, due in {r['due']}" for r in rows]
    return f"Postgres has {'; '.join(found) or 'none of them'}"
