"""When to try again, and when to stop. Pure: time and chance are given.

The delay grows by a factor from attempt to attempt up to a maximum, and each is moved by a random share of itself, so
that what failed together does not come back together. A message is given up by its age (RFC 5321 4.5.4.1), and its
last attempt is made when that age is reached, not before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from smtp_proxy.model.attempt import Outcome, RecipientResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtp_proxy.config import Settings


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Seconds, except `jitter`: the share of a delay by which it may be shorter or longer."""

    initial_seconds: float
    factor: float
    max_seconds: float
    jitter: float
    give_up_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> RetryPolicy:
        """Read the policy from the settings."""
        return cls(
            initial_seconds=settings.retry_initial_seconds,
            factor=settings.retry_factor,
            max_seconds=settings.retry_max_seconds,
            jitter=settings.retry_jitter,
            give_up_seconds=settings.retry_give_up_seconds,
        )

    def delay_seconds(self, attempt_number: int, chance: float) -> float:
        """How long to wait after attempt `attempt_number` (from 1). `chance` is in [0, 1)."""
        delay = self.initial_seconds
        for _ in range(attempt_number - 1):
            delay *= self.factor
            if delay >= self.max_seconds:
                break
        return min(delay, self.max_seconds) * (1 + self.jitter * (2 * chance - 1))

    def settle(
        self,
        result: RecipientResult,
        *,
        attempt_number: int,
        received_at: datetime,
        now: datetime,
        random: Callable[[], float],
    ) -> tuple[RecipientResult, datetime | None]:
        """Return the result to record, and when to try again (None: never)."""
        if result.outcome not in (Outcome.DEFERRED, Outcome.UNKNOWN):
            return result, None
        last_call = received_at + timedelta(seconds=self.give_up_seconds)
        if now >= last_call:
            return _given_up(result, self.give_up_seconds), None
        again = now + timedelta(seconds=self.delay_seconds(attempt_number, random()))
        return result, min(again, last_call)


def _given_up(result: RecipientResult, after_seconds: float) -> RecipientResult:
    said = f"{result.reply_code} {result.reply_text}" if result.reply_code else result.reply_text
    return replace(
        result,
        outcome=Outcome.REFUSED,
        enhanced_code="5.4.7",  # RFC 3463 3.5: delivery time expired
        reply_text=f"given up after {duration(after_seconds)}; at last: {said}",
    )


def duration(seconds: float) -> str:
    """Say a span of time in its largest whole unit."""
    for unit, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= unit:
            count = round(seconds / unit, 1)
            return f"{count:g} {name}{'' if count == 1 else 's'}"
    return f"{seconds:g} seconds"
