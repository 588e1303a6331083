"""The ledger, and the account: is each message that was answered 250 where it should be, and how often?

A duplicate is *of unknown outcome* where Postgres has an attempt of unknown outcome for each copy but the last: nobody
could know better, and that is on record. Two kinds leave no record, and each is looked for by what made it so
(`Rules.excuse`). Any other is a fault of ours, and so is every duplicate of a tenant that holds what is unknown.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

Copy = tuple[str, str]  # Message-ID, recipient
QUIET = "no fault yet"  # the period before the first
# A commit that did not wait for the disk is on it after three wal_writer_delay (200 ms) at most; the rest is for a slow
# machine.
UNFLUSHED_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Arrival:
    copy: Copy
    at: float  # monotonic
    answered: bool  # a whole 250 was written
    by: str = ""  # the worker that sent it


@dataclass(slots=True)
class Period:
    """One fault, from its beginning to that of the next. Times are monotonic."""

    name: str
    began: float
    healed: float = 0.0
    ended: float = float("inf")
    hides: frozenset[str] = frozenset()  # workers whose outcomes may get lost on their way to Postgres while it lasts
    delays: bool = False  # outcomes wait in their worker while it lasts
    crashes: bool = False  # Postgres loses what it has committed and not flushed


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
    """What the sink took, what it refused for good, and what it read that was not as it was sent (and when)."""

    taken: defaultdict[Copy, list[Arrival]] = field(default_factory=lambda: defaultdict(list))
    refused: set[Copy] = field(default_factory=set)
    altered: list[tuple[Copy, float]] = field(default_factory=list)

    def take(self, copy: Copy, *, answered: bool, by: str) -> None:
        self.taken[copy].append(Arrival(copy, time.monotonic(), answered, by))

    def alter(self, copy: Copy) -> None:
        self.altered.append((copy, time.monotonic()))


@dataclass
class Line:
    """One line of the account."""

    fault: str
    times: int = 0
    sent: int = 0
    lost: int = 0
    altered: int = 0
    refused: int = 0
    held: int = 0
    recorded: int = 0  # duplicates whose outcome Postgres has as unknown
    unrecorded: int = 0  # duplicates of which that is not on record, for a reason with a name
    unexplained: int = 0


_COLUMNS = {
    "times": "times",
    "sent": "sent",
    "lost": "lost",
    "altered": "altered",
    "refused": "refused by the sink (554)",
    "held": "held: outcome unknown",
    "recorded": "duplicates, recorded as of unknown outcome",
    "unrecorded": "duplicates, that record lost with Postgres or never made",
    "unexplained": "other duplicates",
}


@dataclass
class Account:
    """The result of a run. `lost`, `altered` and `unexplained` name messages, for whoever looks into it."""

    lines: list[Line]
    lost: list[Copy]
    altered: list[Copy]
    unexplained: list[tuple[Copy, str]]
    excuses: Counter[str]

    @property
    def is_clean(self) -> bool:
        """Nothing is wrong."""
        return not (self.lost or self.altered or self.unexplained)

    @property
    def total(self) -> Line:
        total = Line("**all**")
        for line in self.lines:
            for name in _COLUMNS:
                setattr(total, name, getattr(total, name) + getattr(line, name))
        return total

    def markdown(self) -> str:
        """As a table, sums last, and why records of duplicates are missing."""
        rows = [f"| fault | {' | '.join(_COLUMNS.values())} |", f"|---|{'--:|' * len(_COLUMNS)}"]
        rows += [
            f"| {line.fault} | {' | '.join(str(getattr(line, name)) for name in _COLUMNS)} |"
            for line in [*self.lines, self.total]
        ]
        reasons = [f"- {count} without a record: {excuse}." for excuse, count in sorted(self.excuses.items())]
        return "\n".join([*rows, *([""] if reasons else []), *reasons]) + "\n"


@dataclass(frozen=True, slots=True)
class Rules:
    """What of a duplicate may go unrecorded, by how the run was set up."""

    grace_seconds: float  # around a fault, until an outcome is recorded
    data_seconds: float  # for so long a worker waits for the answer to a final dot
    holds: bool = False  # the tenant holds what is of unknown outcome: nothing comes twice
    unledgered: str = ""  # the worker of a release that does not write down what it is about to send

    def excuse(self, periods: list[Period], first: Arrival) -> str:
        """Why Postgres has no attempt of unknown outcome for this copy, after which another came; "": no reason."""
        if self.holds:
            return ""
        if self.unledgered and first.by == self.unledgered:
            if not first.answered or _is_hidden(periods, first, self.grace_seconds):
                return "sent by a worker of the release before, which does not write down what it is about to send"
            return ""
        # Written before the dot, which the worker waits for no longer than that.
        if any(p.crashes and p.began - UNFLUSHED_SECONDS <= first.at <= p.healed + self.data_seconds for p in periods):
            return "Postgres died with the record, which did not wait for the disk, as the tenant sends again anyway"
        return ""


def settle(
    acknowledged: dict[Copy, float],
    arrivals: Arrivals,
    periods: list[Period],
    held: set[Copy],
    unknown: Mapping[Copy, int],
    rules: Rules,
) -> Account:
    """Account for every copy; one that is duplicated counts where its *first* copy arrived.

    `unknown`: how many attempts of unknown outcome Postgres has for each.
    """
    lines: dict[str, Line] = {}
    for name, times in Counter(period.name for period in periods).items():
        lines[name] = Line(name, times if name != QUIET else 0)
    account = Account([], [], [], [], Counter())
    for copy, at in acknowledged.items():
        line = lines[_period(periods, at).name]
        line.sent += 1
        line.held += copy in held  # whether or not it arrived: nobody knows
        if copy in arrivals.taken or copy in held:
            continue
        if copy in arrivals.refused:
            line.refused += 1
        else:
            line.lost += 1
            account.lost.append(copy)
    for copy, at in arrivals.altered:
        lines[_period(periods, at).name].altered += 1
        account.altered.append(copy)
    for taken in arrivals.taken.values():
        _settle_duplicates(taken, account, lines, periods, unknown, rules)
    account.lines = list(lines.values())
    return account


def _settle_duplicates(
    taken: list[Arrival],
    account: Account,
    lines: dict[str, Line],
    periods: list[Period],
    unknown: Mapping[Copy, int],
    rules: Rules,
) -> None:
    """An attempt of unknown outcome says nothing of which copy it was, so those without an excuse have them first."""
    recorded = 0 if rules.holds else unknown.get(taken[0].copy, 0)
    firsts = [(rules.excuse(periods, first), first) for first in taken[:-1]]
    for excuse, first in sorted(firsts, key=lambda pair: bool(pair[0])):
        line = lines[_period(periods, first.at).name]
        if recorded:
            recorded -= 1
            line.recorded += 1
        elif excuse:
            line.unrecorded += 1
            account.excuses[excuse] += 1
        else:
            line.unexplained += 1
            account.unexplained.append((first.copy, line.fault))


def _period(periods: list[Period], at: float) -> Period:
    return next((period for period in reversed(periods) if period.began <= at), periods[0])


def _is_hidden(periods: list[Period], first: Arrival, grace_seconds: float) -> bool:
    """What came while Postgres was away is recorded when it is back, if its worker lives as long."""
    at = first.at
    waits = (p.healed for p in periods if p.delays and p.began - grace_seconds <= at <= p.healed)
    recorded_at = max([at, *waits]) + grace_seconds
    return any(first.by in p.hides and p.began <= recorded_at and at <= p.healed + grace_seconds for p in periods)
