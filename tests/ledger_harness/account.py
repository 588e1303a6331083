"""The ledger, and the account: is each message that was answered 250 where it should be, and how often?

A duplicate is *allowed* where nobody could know better: the server that took the first copy gave no answer that
arrived, or whoever waited for it was killed or cut off before it could be recorded. Any other is a fault of ours.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

Copy = tuple[str, str]  # Message-ID, recipient
QUIET = "no fault yet"  # the period before the first


@dataclass(frozen=True, slots=True)
class Arrival:
    copy: Copy
    at: float  # monotonic
    answered: bool  # a whole 250 was written


@dataclass(slots=True)
class Period:
    """One fault, from its beginning to that of the next. Times are monotonic."""

    name: str
    began: float
    healed: float = 0.0
    ended: float = float("inf")
    unknown: bool = False  # outcomes may get lost on their way to Postgres while it lasts
    delays: bool = False  # outcomes wait in their worker while it lasts


class Ledger:
    """Every 250 that a sender read, in a file, written before the sender goes on."""

    def __init__(self, file: Path) -> None:
        self._file: IO[str] = file.open("a", encoding="utf-8")
        self.acknowledged: dict[Copy, float] = {}

    def acknowledge(self, message_id: str, recipients: list[str], reply: str) -> None:
        now = time.monotonic()
        self._file.write(json.dumps({"id": message_id, "to": recipients, "reply": reply, "at": now}) + "\n")
        self._file.flush()
        for recipient in recipients:
            self.acknowledged[message_id, recipient] = now

    def close(self) -> None:
        self._file.close()


@dataclass
class Arrivals:
    """What the sink took, and what it refused for good."""

    taken: defaultdict[Copy, list[Arrival]] = field(default_factory=lambda: defaultdict(list))
    refused: set[Copy] = field(default_factory=set)

    def take(self, copy: Copy, *, answered: bool) -> None:
        self.taken[copy].append(Arrival(copy, time.monotonic(), answered))


@dataclass
class Line:
    """One line of the account."""

    fault: str
    times: int = 0
    sent: int = 0
    lost: int = 0
    refused: int = 0
    held: int = 0
    allowed: int = 0
    unexplained: int = 0


@dataclass
class Account:
    """The result of a run. `lost` and `unexplained` name messages, for whoever looks into it."""

    lines: list[Line]
    lost: list[Copy]
    unexplained: list[tuple[Copy, str]]

    @property
    def total(self) -> Line:
        total = Line("**all**")
        for line in self.lines:
            for name in ("times", "sent", "lost", "refused", "held", "allowed", "unexplained"):
                setattr(total, name, getattr(total, name) + getattr(line, name))
        return total

    def markdown(self) -> str:
        """As a table, sums last."""
        rows = [
            "| fault | times | sent | lost | refused by the sink (554) | held: outcome unknown "
            "| duplicates, outcome unknown | other duplicates |",
            "|---|--:|--:|--:|--:|--:|--:|--:|",
        ]
        rows += [
            f"| {line.fault} | {line.times} | {line.sent} | {line.lost} | {line.refused} | {line.held} "
            f"| {line.allowed} | {line.unexplained} |"
            for line in [*self.lines, self.total]
        ]
        return "\n".join(rows) + "\n"


def settle(
    acknowledged: dict[Copy, float],
    arrivals: Arrivals,
    periods: list[Period],
    held: set[Copy],
    *,
    grace_seconds: float,
) -> Account:
    """Account for every copy; one that is duplicated counts where its *first* copy arrived.

    An outcome counts as unknown for `grace_seconds` around a fault that hides outcomes: so long may pass between the
    sink's answer and the end of the transaction that records it, or between a message's wait and its lease's end.
    """
    lines: dict[str, Line] = {}
    for name, times in Counter(period.name for period in periods).items():
        lines[name] = Line(name, times if name != QUIET else 0)
    lost: list[Copy] = []
    unexplained: list[tuple[Copy, str]] = []
    for copy, at in acknowledged.items():
        line = lines[_period(periods, at).name]
        line.sent += 1
        if copy in arrivals.taken:
            continue
        if copy in arrivals.refused:
            line.refused += 1
        elif copy in held:
            line.held += 1
        else:
            line.lost += 1
            lost.append(copy)
    for copy, taken in arrivals.taken.items():
        for first in taken[:-1]:
            period = _period(periods, first.at)
            if not first.answered or _is_hidden(periods, first.at, grace_seconds):
                lines[period.name].allowed += 1
            else:
                lines[period.name].unexplained += 1
                unexplained.append((copy, period.name))
    return Account(list(lines.values()), lost, unexplained)


def _period(periods: list[Period], at: float) -> Period:
    return next((period for period in reversed(periods) if period.began <= at), periods[0])


def _is_hidden(periods: list[Period], at: float, grace_seconds: float) -> bool:
    """What came while Postgres was away is recorded when it is back, if its worker lives as long."""
    waits = (p.healed for p in periods if p.delays and p.began - grace_seconds <= at <= p.healed)
    recorded_at = max([at, *waits]) + grace_seconds
    return any(p.unknown and p.began <= recorded_at and at <= p.healed + grace_seconds for p in periods)
