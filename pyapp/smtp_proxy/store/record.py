"""Recording: attempts as columns for one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smtp_proxy.model.attempt import Attempt, Outcome, Postponed, Sending
from smtp_proxy.model.envelope import DeliveryState

if TYPE_CHECKING:
    from collections.abc import Sequence

# A reply may be long (RFC 5321 4.2.1 allows many lines); what explains it stands at its beginning. Characters.
_REPLY_TEXT_MAX = 2000

STATE_AFTER = {
    Outcome.DELIVERED: DeliveryState.DELIVERED,
    Outcome.DEFERRED: DeliveryState.QUEUED,
    Outcome.REFUSED: DeliveryState.REFUSED,
    Outcome.UNKNOWN: DeliveryState.QUEUED,  # or held, by the tenant's policy
}


def columns(attempts: Sequence[Attempt]) -> tuple[Any, ...]:
    """Parameters of the statement `record`."""
    ids = [a.envelope_id for a in attempts]
    return (
        ids,
        [a.result.number for a in attempts],
        [a.number for a in attempts],
        [int(a.result.outcome) for a in attempts],
        [a.result.reply_code for a in attempts],
        [a.result.enhanced_code for a in attempts],
        [storable(a.result.reply_text)[:_REPLY_TEXT_MAX] for a in attempts],
        [a.result.remote for a in attempts],
        [a.worker_id for a in attempts],
        [a.started_at for a in attempts],
        [a.finished_at for a in attempts],
        [a.next_attempt_at for a in attempts],
        [int(STATE_AFTER[a.result.outcome]) for a in attempts],
        min(ids),
        max(ids),
        [int(a.result.kind) for a in attempts],
    )


def sending_columns(sendings: Sequence[Sending]) -> tuple[Any, ...]:
    """Parameters of the statement `sending`."""
    ids = [s.envelope_id for s in sendings]
    return (
        ids,
        [s.recipient_number for s in sendings],
        [s.attempt_number for s in sendings],
        [s.worker_id for s in sendings],
        [s.started_at for s in sendings],
        [s.remote for s in sendings],
        min(ids),
        max(ids),
        list({s.tenant_id for s in sendings}),
    )


def postponed_columns(postponed: Sequence[Postponed]) -> tuple[Any, ...]:
    """Parameters of the statement `postpone`."""
    ids = [p.envelope_id for p in postponed]
    return (
        ids,
        [p.recipient_number for p in postponed],
        [p.worker_id for p in postponed],
        [p.next_attempt_at for p in postponed],
        min(ids),
        max(ids),
        [p.why for p in postponed],
    )


def storable(text: str) -> str:
    """Text from the network as Postgres can keep it: no NUL, no lone surrogates."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
