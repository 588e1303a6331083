"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is."""

    OK = "ok"
    SKIPPED = "skipped"  # it does not concern this deployment, or can not be told from here
    WARNING = "warning"  # mail flows, and something will be missed
    FAILED = "failed"  # mail does not flow, or will not


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `next_step` is empty where there is nothing to do."""

    level: Level
    what: str
    next_step: str = ""


def ok(what: str) -> Finding:
    return Finding(Level.OK, what)


def skipped(what: str, next_step: str = "") -> Finding:
    return Finding(Level.SKIPPED, what, next_step)


def warning(what: str, next_step: str) -> Finding:
    return Finding(Level.WARNING, what, next_step)


def failed(what: str, next_step: str) -> Finding:
    return Finding(Level.FAILED, what, next_step)
