"""What an operator does to mail that is not delivered yet. What a worker has just taken is left alone."""

from __future__ import annotations

from enum import StrEnum


class Change(StrEnum):
    """Each takes the deliveries that stand where it applies, and leaves the others as they are."""

    HOLD = "hold"  # queued: it stays until it is released
    RELEASE = "release"  # held: it is due now
    CANCEL = "cancel"  # queued or held: it is never delivered
