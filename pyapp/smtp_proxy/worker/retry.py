"""When to try again, and when to stop. Pure: time and chance are given.

The delay grows by a factor from attempt to attempt up to a maximum, and each is moved by a random share of itself, so
that what failed together does not come back together. A kind of trouble, or a route, may have a schedule instead. A
message is given up by its age (RFC 5321 4.5.4.1), and its last attempt is made when that age is reached, not before.

What is merely postponed was not asked of anybody, so by that alone it is not given up at its age, but at twice that:
a next hop whose line never comes to an end must not keep mail for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from smtp_proxy.errors import ConfigurationError
from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from smtp_proxy.config import Settings
    from smtp_proxy.model.envelope import Envelope, Recipient

# By the name of a route, and the kind; None is any. Delays in units of retry_initial_seconds.
Schedules: TypeAlias = "Mapping[tuple[str | None, Kind | None], tuple[float, ...]]"

# Times its age, for what is postponed again and again.
POSTPONED_AGES: Final = 2


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Seconds, except `jitter`: the share of a delay by which it may be shorter or longer."""

    initial_seconds: float
    factor: float
    max_seconds: float
    jitter: float
    give_up_seconds: float
    schedules: Schedules = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> RetryPolicy:
        """Read the policy from the settings. Raises ConfigurationError."""
        return cls(
            initial_seconds=settings.retry_initial_seconds,
            factor=settings.retry_factor,
            max_seconds=settings.retry_max_seconds,
            jitter=settings.retry_jitter,
            give_up_seconds=settings.retry_give_up_seconds,
            schedules=read_schedules(settings.retry_schedules),
        )

    def delay_seconds(self, attempt_number: int, chance: float, route: str = "", kind: Kind = Kind.UNKNOWN) -> float:
        """How long to wait after attempt `attempt_number` (from 1). `chance` is in [0, 1)."""
        schedule = self._schedule(route, kind)
        if schedule:
            delay = self.initial_seconds * schedule[min(attempt_number, len(schedule)) - 1]
            return self._moved(delay, chance)
        delay = self.initial_seconds
        for _ in range(attempt_number - 1):
            delay *= self.factor
            if delay >= self.max_seconds:
                break
        return self._moved(delay, chance)

    def _moved(self, delay: float, chance: float) -> float:
        return min(delay, self.max_seconds) * (1 + self.jitter * (2 * chance - 1))

    def _schedule(self, route: str, kind: Kind) -> tuple[float, ...]:
        """The most particular one: of the route and kind, of the route, of the kind, of all."""
        if not self.schedules:
            return ()
        keys = ((route, kind), (route, None), (None, kind), (None, None))
        return next((found for key in keys if (found := self.schedules.get(key))), ())

    def settle(
        self,
        result: RecipientResult,
        *,
        attempt_number: int,
        received_at: datetime,
        now: datetime,
        random: Callable[[], float],
        give_up_seconds: float | None = None,
        holds_unknown: bool = False,
    ) -> tuple[RecipientResult, datetime | None]:
        """Return the result to record, and when to try again (None: never).

        `attempt_number` and `received_at` are those that count: see `counted`. `give_up_seconds`: a tenant's own.
        `holds_unknown`: its mail that may have arrived is for the operator to judge, however old it is.
        """
        if result.outcome not in (Outcome.DEFERRED, Outcome.UNKNOWN):
            return result, None
        give_up_seconds = self.give_up_seconds if give_up_seconds is None else give_up_seconds
        if result.postponed_seconds:
            give_up_seconds *= POSTPONED_AGES
        last_call = received_at + timedelta(seconds=give_up_seconds)
        if now >= last_call and not (holds_unknown and result.outcome is Outcome.UNKNOWN):
            return _given_up(result, give_up_seconds), None
        delay = self.delay_seconds(attempt_number, random(), result.route, result.kind)
        again = now + timedelta(seconds=delay)
        return result, min(again, last_call)


def counted(envelope: Envelope, recipient: Recipient) -> tuple[int, datetime]:
    """The attempt's number and since when it is tried: a replayed dead letter, and what was held, begin anew."""
    since = envelope.received_at if recipient.replayed_at is None else recipient.replayed_at
    return max(1, recipient.attempt_number - recipient.replayed_attempts), since


def read_schedules(text: str) -> Schedules:
    """`[ROUTE/]KIND=1,2,5 …`. Raises ConfigurationError."""
    schedules = {}
    for entry in text.split():
        name, _, delays = entry.partition("=")
        route, _, kind = name.rpartition("/")
        try:
            key = (route or None, None if kind == "*" else Kind[kind.upper()])
            schedule = tuple(float(delay) for delay in delays.split(","))
        except (KeyError, ValueError):
            schedule = ()
        if not schedule or not all(0 < delay < 1e9 for delay in schedule):
            kinds = ", ".join(kind.name.lower() for kind in Kind)
            raise ConfigurationError(
                f"RETRY_SCHEDULES: {entry}: write KIND=1,2,5 or ROUTE/KIND=1,2,5; the kinds are {kinds} and * for any"
            )
        schedules[key] = schedule
    return schedules


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
