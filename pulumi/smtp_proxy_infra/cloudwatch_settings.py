"""Sections alarms, charts and budget of stack.yaml: a part of `cloudwatch`.

The twin of terraform/modules/cloudwatch/variables.tf, which refuses the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .settings import require

SOURCES = ("application", "ecs", "container-insights", "target-groups", "database", "cache")
WHOLES = ("max_connections", "allocated_storage", "ready_depth_high")
STATISTICS = ("Average", "Maximum", "Minimum", "Sum", "SampleCount")
MISSING = ("breaching", "notBreaching", "ignore", "missing")
ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def require_addresses(addresses: Sequence[str]) -> None:
    """Raises: BadSettings unless these are e-mail addresses, each once, and no more than a budget takes."""
    require(
        all(ADDRESS.fullmatch(each) for each in addresses)
        and len(set(addresses)) == len(addresses)
        and len(addresses) <= 10,
        'alert_emails must be e-mail addresses, such as ["operators@example.com"], each once, and 10 at most, which '
        "is what a budget takes.",
    )


@dataclass(frozen=True, kw_only=True)
class AlarmSettings:
    """One of section alarms, which says there what each field is."""

    source: str
    statistic: str
    minutes: int
    missing: str
    why_missing: str
    meaning: str
    services: Sequence[str] | None = None
    metric: str | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)
    expression: str | None = None
    above: float | None = None
    below: float | None = None
    percent_of: str | None = None
    period_seconds: int = 60
    rollback: bool = False
    groups: str = "most"
    breaching_minutes: int | None = None

    def __post_init__(self) -> None:
        """Raises: BadSettings."""
        require(self.source in SOURCES, f"alarms: source must be one of {', '.join(SOURCES)}.")
        require(
            (self.metric is None) == bool(self.metrics) == (self.expression is not None)
            and (self.source == "application" or not self.metrics),
            "alarms: an alarm has metric, or metrics with an expression over them, which source application alone may "
            "have.",
        )
        require(
            self.groups == "most"
            or (self.groups, self.source, self.metric) == ("down", "target-groups", "HealthyHostCount"),
            "alarms: groups must be most or down, and down is of source target-groups and its HealthyHostCount alone.",
        )
        require((self.above is None) != (self.below is None), "alarms: an alarm has above or below, and not both.")
        require(
            self.percent_of is None or self.percent_of in WHOLES,
            f"alarms: percent_of must be one of {', '.join(WHOLES)}.",
        )
        require(
            self.period_seconds >= 60
            and self.period_seconds % 60 == 0
            and 0 < self.minutes <= 1440
            and self.minutes * 60 % self.period_seconds == 0,
            "alarms: period_seconds must be whole minutes, and minutes a multiple of it, 1440 at most: CloudWatch "
            "looks back a day.",
        )
        require(
            self.breaching_minutes is None
            or (0 < self.breaching_minutes <= self.minutes and self.breaching_minutes * 60 % self.period_seconds == 0),
            "alarms: breaching_minutes must be a multiple of period_seconds, and no more than minutes.",
        )
        require(
            self.missing in MISSING and len(self.why_missing) > 10,
            f"alarms: missing must be one of {', '.join(MISSING)}, and why_missing says why.",
        )
        require(self.statistic in STATISTICS, f"alarms: statistic must be one of {', '.join(STATISTICS)}.")

    @property
    def needed(self) -> int | None:
        """Of the periods that are looked at, those that must breach; None: all."""
        return None if self.breaching_minutes is None else self.breaching_minutes * 60 // self.period_seconds

    def threshold(self, wholes: Mapping[str, float]) -> float:
        """In the unit of the metric; `wholes`: what percentages are of."""
        said = (self.above or 0) + (self.below or 0)  # one of the two is not there
        return said if self.percent_of is None else said * wholes[self.percent_of] / 100


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One of section charts."""

    title: str
    source: str
    metrics: Sequence[str]
    statistic: str
    services: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Raises: BadSettings."""
        require(self.source in SOURCES, f"charts: source must be one of {', '.join(SOURCES)}.")


@dataclass(frozen=True, kw_only=True)
class BudgetSettings:
    """Section budget: US dollars a month, percent of them."""

    monthly_limit_usd: int
    actual_percent: int
    forecast_percent: int
    by_tag: bool

    def __post_init__(self) -> None:
        """Raises: BadSettings."""
        require(
            min(self.monthly_limit_usd, self.actual_percent, self.forecast_percent) > 0,
            "budget: monthly_limit_usd, actual_percent and forecast_percent must be more than 0.",
        )


def alarms_of(section: Mapping[str, Mapping[str, Any]]) -> dict[str, AlarmSettings]:
    """Section alarms. Raises: BadSettings."""
    return {key: AlarmSettings(**section[key]) for key in sorted(section)}


def charts_of(section: Mapping[str, Any]) -> list[Chart]:
    """Section charts. Raises: BadSettings."""
    return [Chart(**each) for each in section["widgets"]]
