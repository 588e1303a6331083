"""What a tenant wants to become of its mail, once it is accepted."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class OnUnknown(StrEnum):
    """What becomes of a message that was sent with its final dot when no answer came, or nobody was left to hear it."""

    RETRY = "retry"  # it is sent again, and may arrive twice
    HOLD = "hold"  # it stays until an operator releases or cancels it


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """Of one tenant. None: as the settings say, or not at all."""

    on_unknown: OnUnknown = OnUnknown.RETRY
    # Submission is idempotent for so long, in seconds: the same key with the same credential is the same message.
    idempotency_seconds: int | None = None
