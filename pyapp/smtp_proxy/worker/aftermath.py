"""What a job's attempts bring about beside their record: a report to its sender, suppressed addresses. Pure.

Nothing for mail that was delivered, unless its sender asked to hear of it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult
from smtp_proxy.model.dsn import Notify
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.mailbox import mailbox_key
from smtp_proxy.model.outcome import Consequences, DueReport, Suppression
from smtp_proxy.model.policy import Reports
from smtp_proxy.store.ids import new_id
from smtp_proxy.worker.dsn import Action, Ending, report
from smtp_proxy.worker.retry import POSTPONED_AGES, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smtp_proxy.config import Settings
    from smtp_proxy.model.attempt import Attempt
    from smtp_proxy.model.envelope import Envelope, Job, Recipient
    from smtp_proxy.model.policy import TenantPolicy

NOTHING: Final = Consequences()
_ASKS: Final = {Action.FAILED: Notify.FAILURE, Action.DELAYED: Notify.DELAY, Action.RELAYED: Notify.SUCCESS}
# RFC 3461 4.1: without NOTIFY, failures and, if we like, delays.
_WITHOUT_NOTIFY: Final = Notify.FAILURE | Notify.DELAY


def is_quiet(job: Job, results: Sequence[RecipientResult]) -> bool:
    """Whether nothing can come of it, whatever the tenant wants: so it is with nearly all mail."""
    return all(result.outcome is Outcome.DELIVERED for result in results) and all(
        recipient.notify is None for recipient in job.recipients
    )


def suppressed(recipient: Recipient) -> RecipientResult:
    """The refusal of an address that gets no mail of this tenant; nobody was asked."""
    text = f"on the suppression list, where `smtp-proxy suppressions` shows it: {recipient.suppressed}"
    return RecipientResult(recipient.number, Outcome.REFUSED, 0, "5.7.1", text, "", Kind.LOCAL)


class Aftermath:
    """Decides by the settings and by what the tenant wants."""

    def __init__(self, settings: Settings) -> None:
        self._hostname = settings.hostname
        self._delay_seconds = settings.report_delay_seconds
        self._full_max_bytes = settings.report_full_max_bytes
        self._give_up_seconds = settings.retry_give_up_seconds

    def of(self, job: Job, attempts: Sequence[Attempt], wanted: TenantPolicy, now: datetime) -> Consequences:
        """`attempts` are those of the job's recipients, in their order. To the null reverse-path nothing is said."""
        envelope = job.envelope
        endings = self._endings(job, attempts, wanted) if envelope.reverse_path else {}
        return Consequences(
            [self._due(envelope, endings, now, job.lane)] if endings else (),
            _suppressions(job, attempts) if wanted.suppress_hard_bounces else (),
        )

    def of_postponed(
        self,
        envelope: Envelope,
        postponed: Sequence[tuple[Recipient, RecipientResult]],
        wanted: TenantPolicy,
        now: datetime,
        lane: Lane = Lane.TRANSACTIONAL,
    ) -> Consequences:
        """Of those that go back to the queue without an attempt: their senders hear of a long delay all the same."""
        if not envelope.reverse_path:
            return NOTHING
        endings = {}
        for recipient, result in postponed:
            _, since = counted(envelope, recipient)
            told = recipient.delay_reported or not _is_wanted(Action.DELAYED, recipient, wanted.reports)
            if self._is_late(since, now) and not told:
                until = since + self._max_age(wanted)
                if until <= now:  # it waits for its last attempt
                    until = since + POSTPONED_AGES * self._max_age(wanted)
                endings[recipient.number] = Ending(recipient, Action.DELAYED, result, None, until)
        return Consequences([self._due(envelope, endings, now, lane)]) if endings else NOTHING

    def _is_late(self, since: datetime, now: datetime) -> bool:
        return 0 < self._delay_seconds <= (now - since).total_seconds()

    def _max_age(self, wanted: TenantPolicy) -> timedelta:
        return timedelta(seconds=wanted.max_age_seconds or self._give_up_seconds)

    def _endings(self, job: Job, attempts: Sequence[Attempt], wanted: TenantPolicy) -> dict[int, Ending]:
        """By the recipients' numbers."""
        found = {}
        for recipient, attempt in zip(job.recipients, attempts, strict=True):
            _, since = counted(job.envelope, recipient)
            action = _action(attempt, late=self._is_late(since, attempt.finished_at))
            if action is not None and _is_wanted(action, recipient, wanted.reports):
                until = since + self._max_age(wanted) if action is Action.DELAYED else None
                found[recipient.number] = Ending(recipient, action, attempt.result, attempt.finished_at, until)
        return found

    def _due(self, envelope: Envelope, endings: dict[int, Ending], now: datetime, lane: Lane) -> DueReport:
        report_id = new_id(now)

        def render(numbers: frozenset[int]) -> Envelope | None:
            told = [ending for number, ending in endings.items() if number in numbers]
            return report(envelope, told, report_id, self._hostname, now, self._full_max_bytes) if told else None

        return DueReport(
            report_id,
            envelope.id,
            frozenset(endings),
            frozenset(number for number, ending in endings.items() if ending.action is Action.DELAYED),
            envelope.reverse_path,
            render,
            lane,
        )


def _action(attempt: Attempt, *, late: bool) -> Action | None:
    result = attempt.result
    if result.outcome is Outcome.REFUSED:
        return Action.FAILED
    if result.outcome is Outcome.DEFERRED:
        return Action.DELAYED if late else None
    # RFC 3461 5.2.2; whoever offers DSN reports itself, or passes that on (5.2.1).
    return Action.RELAYED if result.outcome is Outcome.DELIVERED and not result.dsn_passed_on else None


def _is_wanted(action: Action, recipient: Recipient, reports: Reports) -> bool:
    if reports is Reports.NONE:
        return False
    default = _WITHOUT_NOTIFY if reports is Reports.ALL else Notify.NEVER
    return _ASKS[action] in (default if recipient.notify is None else recipient.notify)


def _suppressions(job: Job, attempts: Sequence[Attempt]) -> list[tuple[int, Suppression]]:
    found = []
    for recipient, attempt in zip(job.recipients, attempts, strict=True):
        result = attempt.result
        if result.outcome is Outcome.REFUSED and result.kind is Kind.HARD:
            said = f"{result.reply_code} {result.enhanced_code} {result.reply_text}"[:500]
            suppression = Suppression(job.envelope.tenant_id, mailbox_key(recipient.address), said, job.envelope.id)
            found.append((recipient.number, suppression))
    return found
