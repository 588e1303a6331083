"""What load balancers carry, in the units that AWS counts by: each hour the greatest of what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# NLCU of TCP (elasticloadbalancing/pricing).
_NLB_NEW_PER_SECOND: Final = 800
_NLB_ACTIVE: Final = 100_000
_NLB_GB_PER_HOUR: Final = 1.0
# LCU with targets that are no functions.
_ALB_NEW_PER_SECOND: Final = 25
_ALB_ACTIVE: Final = 3_000
_ALB_GB_PER_HOUR: Final = 1.0
_ALB_RULES_PER_SECOND: Final = 1_000
_ALB_RULES_FREE: Final = 10  # of each request
# The listener's rule for the API, and its last one, for everything else.
ALB_RULES: Final = 2


@dataclass(frozen=True, slots=True)
class Carried:
    """By one load balancer, on average."""

    connections: float  # new ones a second
    connection_seconds: float
    gb_per_hour: float
    requests: float = 0.0  # a second

    @property
    def active(self) -> float:
        return self.connections * self.connection_seconds


def nlb_units(of: Carried) -> float:
    """Pure."""
    return max(of.connections / _NLB_NEW_PER_SECOND, of.active / _NLB_ACTIVE, of.gb_per_hour / _NLB_GB_PER_HOUR)


def alb_units(of: Carried, rules: int = ALB_RULES) -> float:
    """Pure. Each request is held against all `rules`, as the last one is."""
    evaluated = of.requests * max(0, rules - _ALB_RULES_FREE)
    return max(
        of.connections / _ALB_NEW_PER_SECOND,
        of.active / _ALB_ACTIVE,
        of.gb_per_hour / _ALB_GB_PER_HOUR,
        evaluated / _ALB_RULES_PER_SECOND,
    )
