"""What the settings do not say of a deployment, and the operator may."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

Address = tuple[str, int]

# What can be chosen, in the order in which it is told.
CHECK_NAMES: Final = (
    "limits",
    "postgres",
    "redis",
    "listeners",
    "smarthost",
    "port-25",
    "ses",
    "hostname",
    "domains",
)

# Of a TCP listener of the NLB, unless its attribute says otherwise (Elastic Load Balancing, "Update the TCP idle
# timeout for your Network Load Balancer listener").
NLB_IDLE_SECONDS: Final = 350.0


@dataclass(frozen=True)
class Surroundings:
    """Each None: as the settings have it, or not to be told."""

    starttls: Address | None = None  # where 587 is asked
    implicit: Address | None = None  # where 465 is asked
    ca_file: Path | None = None  # who signed our certificates; None: one of the system's CAs
    processes: int | None = None  # services that run side by side at most, all kinds together
    load_balancer_idle_seconds: float = NLB_IDLE_SECONDS
    port_25_host: Address | None = None  # who is asked whether port 25 is open; None: only if mail goes by MX
