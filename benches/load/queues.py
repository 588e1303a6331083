"""What happens in a queue, measured: how fast mail goes through, how long it waits, what a full one costs."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from benches.load import cpu, generator
from benches.load.generator import Load, Target
from benches.load.measure import Measurement, Row, per_1000
from benches.load.ours import Ours
from benches.load.relays import until_empty
from smtp_proxy.model.attempt import Outcome

_CONNECTIONS = 50
_WHOLE = 2**30  # octets: all of it
_DRAIN_SECONDS = 600.0
_LOOK_SECONDS = 2.0
# From the acceptance to the start of the first attempt; the commit is in it, so the time in the queue is a little
# overstated. What was never attempted has waited until now, and is not left out.
_WAIT = """
    SELECT count(*) AS messages,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY wait_ms) AS p50_ms,
           percentile_cont(0.99) WITHIN GROUP (ORDER BY wait_ms) AS p99_ms,
           max(wait_ms) AS max_ms
    FROM (SELECT extract(epoch FROM coalesce(a.started_at, clock_timestamp()) - e.received_at) * 1000 AS wait_ms
          FROM envelopes e LEFT JOIN attempts a ON a.envelope_id = e.id AND a.attempt_number = 1
          WHERE e.helo <> 'backlog') AS waits
"""
# Copies of one accepted message, or of its beginning, under ids of their own: of the past hour, so that nothing new
# lies among them.
_COPIES = """
    WITH made AS MATERIALIZED (
        SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - 3600000 + n / 1000), 12, '0')
                || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid AS id
        FROM generate_series(1, {count}) AS n
    ), envelope AS (
        INSERT INTO envelopes (id, tenant_id, credential_id, reverse_path, recipient_count, size_bytes, body_type,
            smtputf8, helo, client_address, tls, received_at, content)
        SELECT made.id, e.tenant_id, e.credential_id, e.reverse_path, 1, e.size_bytes, e.body_type, e.smtputf8,
            'backlog', e.client_address, e.tls, now() - interval '1 hour', substr(e.content, 1, {octets})
        FROM made, (SELECT * FROM envelopes LIMIT 1) e
    )
    INSERT INTO deliveries (envelope_id, recipient_number, recipient, attempt_count, next_attempt_at, sweep_at)
    SELECT id, 0, 'recipient@load.example', {attempts}, {due}, {due} FROM made
"""
_DEFERRED_UNTIL = "now() + interval '6 hours' + random() * interval '1 hour'"
_OLD_LEFT = "SELECT count(*) FROM deliveries WHERE state IN (0, 1) AND next_attempt_at < now() - interval '30 minutes'"
_DELIVERED = f"SELECT count(*) FROM attempts WHERE outcome = {Outcome.DELIVERED:d}"


class Relay(Protocol):
    """Takes mail and delivers it."""

    name: str

    def target(self) -> Target: ...
    def groups(self) -> cpu.Groups: ...
    def clean(self) -> None: ...
    def left(self) -> int: ...


def whole_way(relay: Relay, messages: int) -> Row:
    """A row: from the first connection until the queue is empty again."""

    def measure() -> Measurement:
        before, began = cpu.used_seconds(relay.groups()), time.monotonic()
        load = Load(_CONNECTIONS, 0, warmup_seconds=0, messages=messages)
        seen = generator.run(generator.COMMAND, relay.target(), load)
        emptied = until_empty(relay, _DRAIN_SECONDS)
        seconds = time.monotonic() - began
        used = cpu.difference(before, cpu.used_seconds(relay.groups()))
        dot, transaction = seen["latency"]["final_dot"], seen["latency"]["transaction"]
        return Measurement(
            row=relay.name,
            messages_per_second=seen["accepted_total"] / seconds,
            cpu_seconds_per_1000=per_1000(used, seen["accepted_total"]),
            p50_ms=dot["p50_ms"],
            p99_ms=dot["p99_ms"],
            transaction_p50_ms=transaction["p50_ms"],
            transaction_p99_ms=transaction["p99_ms"],
            handshake_p50_ms=0.0,
            handshake_p99_ms=0.0,
            generator_cpu_us=seen["own_cpu_us_per_message"],
            errors=seen["errors"] | ({} if emptied else {"not delivered": relay.left()}),
            kept=None,
            accepted=seen["accepted_total"],
        )

    return Row(relay.name, measure, relay.clean)


def lasting(ours: Ours, rate: float, seconds: float) -> dict[str, Any]:
    """An open model at this rate. `growth`: how much the queue grew from the second third to the last, of all mail."""
    ours.clean()
    waiting: list[int] = []
    before = cpu.used_seconds(ours.groups())
    load = Load(_CONNECTIONS, seconds, warmup_seconds=0, rate=rate)
    seen = _watched(ours, load, lambda: waiting.append(ours.left()))
    depth = ours.left()
    emptied = until_empty(ours, 60)
    used = cpu.difference(before, cpu.used_seconds(ours.groups()))
    third = max(1, len(waiting) // 3)
    middle, last = waiting[third : 2 * third] or [0], waiting[-third:] or [depth]
    return {
        "rate": rate,
        "accepted": seen["accepted_total"],
        "delivered": ours.sql(_DELIVERED)[0][0],
        "errors": sum(seen["errors"].values()),
        "queue_first_third": statistics.median(waiting[:third] or [0]),
        "queue_middle_third": statistics.median(middle),
        "queue_last_third": statistics.median(last),
        "queue_at_end": depth,
        "emptied": emptied,
        "growth": (statistics.median(last) - statistics.median(middle)) / max(1, seen["accepted_total"]),
        "cpu_s_per_1000": per_1000(used, seen["accepted_total"])["total"],
    }


def latency(ours: Ours, rate: float, seconds: float) -> dict[str, Any]:
    """From acceptance to the first attempt, as an open model."""
    ours.clean()
    load = Load(_CONNECTIONS, seconds, warmup_seconds=0, rate=rate)
    seen = generator.run(generator.COMMAND, ours.target(), load)
    until_empty(ours, 60)
    return {
        "rate": rate,
        "accepted": seen["accepted_total"],
        "accept_p99_ms": seen["latency"]["from_due"]["p99_ms"],
        **_waits(ours),
    }


def beside_deferred(ours: Ours, deferred: int, messages: int, rounds: int) -> dict[str, Any]:
    """CPU per delivered message, in turns: the queue empty, then with so many deferred in it."""
    each: dict[str, list[dict[str, float]]] = {"empty": [], "deferred": []}
    for name in ("empty", "deferred"):
        ours.clean()
        _one_message(ours)
        if name == "deferred":
            ours.sql(_COPIES.format(count=deferred, attempts=1, due=_DEFERRED_UNTIL, octets=100))
            ours.sql("VACUUM ANALYZE deliveries")
            ours.sql("CHECKPOINT")
        for _ in range(max(1, rounds // 2)):
            each[name].append(_cost(ours, messages))
    middle = {
        f"{group}_{name}": statistics.median(costs[group] for costs in each[name])
        for name in each
        for group in ("worker", "postgres")
    }
    return {
        "deferred": deferred,
        **{f"{name}_cpu_s_per_1000": value for name, value in middle.items()},
        "worker_ratio": middle["worker_deferred"] / middle["worker_empty"],
        "postgres_ratio": middle["postgres_deferred"] / middle["postgres_empty"],
    }


def beside_backlog(ours: Ours, backlog: int, rate: float = 50.0) -> dict[str, Any]:
    """An outage has ended: so many are due at once, and new mail comes in meanwhile. They were written long before."""
    ours.clean()
    _one_message(ours)
    ours.sql_at_rest(_COPIES.format(count=backlog, attempts=1, due="now() - interval '1 hour'", octets=_WHOLE))
    began = time.monotonic()
    drained: list[float] = []

    def look() -> None:
        if not drained and not ours.sql(_OLD_LEFT)[0][0]:
            drained.append(time.monotonic() - began)

    # New mail is measured while there is a backlog: no longer than its draining takes.
    seconds = max(2.0, backlog / 3000)
    seen = _watched(ours, Load(10, seconds, warmup_seconds=0, rate=rate), look)
    left = ours.sql(_OLD_LEFT)[0][0]
    while not drained and time.monotonic() - began < _DRAIN_SECONDS:
        time.sleep(0.5)
        look()
    return {
        "backlog": backlog,
        "accepted_meanwhile": seen["accepted_total"],
        "old_left_when_the_last_new_one_came": left,
        "drained_seconds": drained[0] if drained else None,
        **_waits(ours),
    }


# -- details


def _waits(ours: Ours) -> dict[str, float]:
    """Of all but copies. Raises RuntimeError where there was no mail: there is no latency then, least of all 0 ms."""
    row = ours.sql(_WAIT)[0]
    if not row["messages"]:
        raise RuntimeError("no mail was accepted")
    return {name: float(row[name]) for name in ("messages", "p50_ms", "p99_ms", "max_ms")}


def _watched(ours: Ours, load: Load, look: Callable[[], object]) -> dict[str, Any]:
    """One run of the generator; `look` is called every few seconds meanwhile."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_SECONDS):
            look()

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        return generator.run(generator.COMMAND, ours.target(), load)
    finally:
        over.set()
        watching.join()


def _one_message(ours: Ours) -> None:
    generator.run(generator.COMMAND, ours.target(), Load(1, 0, warmup_seconds=0, messages=1))
    until_empty(ours, 30)


def _cost(ours: Ours, messages: int) -> dict[str, float]:
    before, already = cpu.used_seconds(ours.groups()), ours.sql(_DELIVERED)[0][0]
    load = Load(_CONNECTIONS, 0, warmup_seconds=0, messages=messages)
    seen = generator.run(generator.COMMAND, ours.target(), load)
    finish = time.monotonic() + _DRAIN_SECONDS
    # Of attempts there are few; to count what is left, Postgres would read a million rows each time.
    while ours.sql(_DELIVERED)[0][0] < already + seen["accepted_total"] and time.monotonic() < finish:
        time.sleep(0.2)
    return per_1000(cpu.difference(before, cpu.used_seconds(ours.groups())), seen["accepted_total"])
