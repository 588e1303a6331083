"""From rounds to medians, ratios and verdicts. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benches.load.measure import Measurement

Round = Mapping[str, Measurement]  # by row
Value = Callable[[Measurement], float]


@dataclass(frozen=True)
class Check:
    """A figure to reach: how it is seen in one round, and from where on it is reached."""

    figure: str
    seen: Callable[[Round], float]
    wanted: float
    at_least: bool = True
    unit: str = ""

    def reached(self, value: float) -> bool:
        return value >= self.wanted if self.at_least else value <= self.wanted


@dataclass(frozen=True)
class Verdict:
    figure: str
    value: float | None  # None: not measured here
    wanted: str
    reached: bool | None
    unit: str

    @classmethod
    def of(cls, check: Check, rounds: Iterable[Round]) -> Verdict:
        """The median over the rounds that measured all of it."""
        values = []
        for measured in rounds:
            try:
                values.append(check.seen(measured))
            except (KeyError, ZeroDivisionError):
                continue
        value = statistics.median(values) if values else None
        wanted = f"{'≥' if check.at_least else '≤'} {check.wanted:g}"
        return cls(check.figure, value, wanted, None if value is None else check.reached(value), check.unit)


def speed(row: Measurement) -> float:
    """Raises ZeroDivisionError where nothing came through: such a row is not measured, least of all slow."""
    if not row.messages_per_second:
        raise ZeroDivisionError(row.row)
    return row.messages_per_second


def cost(row: Measurement) -> float:
    """CPU-seconds per 1,000. Raises as `speed`: who refuses all is not dear."""
    speed(row)
    return row.cpu_seconds_per_1000["total"]


def ratio(above: str, below: str, value: Value) -> Callable[[Round], float]:
    """Of two rows in the same round."""
    return lambda measured: value(measured[above]) / value(measured[below])


def core_cost(row: str) -> Callable[[Round], float]:
    """The SMTP service alone: Rust core and Python, without Postgres and Valkey."""
    return lambda measured: measured[row].cpu_seconds_per_1000["server"]


def median_of(rows: Sequence[Measurement]) -> dict[str, Any]:
    """One row's medians over its rounds."""

    def median(value: Value) -> float:
        return statistics.median(value(row) for row in rows)

    kept = {row.kept for row in rows}
    groups = sorted({name for row in rows for name in row.cpu_seconds_per_1000})
    return {
        "rounds": len(rows),
        "messages_per_second": median(lambda row: row.messages_per_second),
        "messages_per_second_spread": spread(row.messages_per_second for row in rows),
        "cpu_seconds_per_1000": {
            group: statistics.median(row.cpu_seconds_per_1000.get(group, 0.0) for row in rows) for group in groups
        },
        "p50_ms": median(lambda row: row.p50_ms),
        "p99_ms": median(lambda row: row.p99_ms),
        "transaction_p50_ms": median(lambda row: row.transaction_p50_ms),
        "transaction_p99_ms": median(lambda row: row.transaction_p99_ms),
        "handshake_p50_ms": median(lambda row: row.handshake_p50_ms),
        "handshake_p99_ms": median(lambda row: row.handshake_p99_ms),
        "generator_cpu_us": median(lambda row: row.generator_cpu_us),
        "errors": sum(sum(row.errors.values()) for row in rows),
        "all_stored": None if kept == {None} else all(row.kept is None or row.kept >= row.accepted for row in rows),
    }


def spread(values: Iterable[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered[0], ordered[-1]]


def medians(rounds: Sequence[Round]) -> dict[str, dict[str, Any]]:
    """Every row's medians, in the order of the first round."""
    names = dict.fromkeys(name for measured in rounds for name in measured)
    return {name: median_of([measured[name] for measured in rounds if name in measured]) for name in names}


def fastest(peers: Sequence[str], value: Value) -> Callable[[Round], float]:
    """Of the peer that took most messages a second in that round; all of them must have been measured."""
    return lambda measured: value(max((measured[peer] for peer in peers), key=speed))
