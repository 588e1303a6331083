"""What a tenant may send, and what becomes of more."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AtLimit(StrEnum):
    """What becomes of a message of a tenant that is over its rate."""

    REJECT = "reject"  # 450 4.7.1: the client keeps it and tries again
    DELAY = "delay"  # 250, and it leaves when the rate lets it
    HOLD = "hold"  # 250, and it stays until an operator releases it


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """Limits of one tenant over the whole fleet. None: any number."""

    messages_per_minute: int | None = None
    recipients_per_minute: int | None = None
    sessions: int | None = None  # at once
    at_limit: AtLimit = AtLimit.REJECT

    @property
    def has_rate(self) -> bool:
        return self.messages_per_minute is not None or self.recipients_per_minute is not None


@dataclass(frozen=True, slots=True)
class Placement:
    """How a message is stored that is not simply ready: held, or not to leave for so long."""

    delay_seconds: float = 0.0
    held: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """How much mail is held."""

    messages: int = 0
    size_bytes: int = 0
