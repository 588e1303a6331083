"""What an operator does to mail that is not delivered yet. What a worker has just taken is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from smtp_proxy.model.envelope import DeliveryState


class Change(StrEnum):
    """Each takes the deliveries that stand where it applies, and leaves the others as they are."""

    HOLD = "hold"  # queued: it stays until it is released
    RELEASE = "release"  # held: it is due now, and has its time until it is given up anew
    CANCEL = "cancel"  # queued or held: it is never delivered


@dataclass(frozen=True, slots=True)
class Reroute:
    """Mail that waits goes another way. `route` None: as the routes file says, again."""

    route: str | None
    states: tuple[DeliveryState, ...] = (DeliveryState.QUEUED, DeliveryState.HELD)
    deferred_alone: bool = False  # only what an attempt was made of
    domains: tuple[str, ...] = ()  # of the recipients, in any spelling; none: all
