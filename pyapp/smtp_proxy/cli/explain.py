"""`smtp-proxy explain ID`: one message's life, and why it waits, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

from smtp_proxy.cli.arguments import settings_of
from smtp_proxy.cli.connected import with_store
from smtp_proxy.cli.messages import parse_id
from smtp_proxy.cli.output import when
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.dsn import Notify
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.message import AttemptRecord, Delivery, Message, MessageSummary
from smtp_proxy.store import Store


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a message's own rows do not tell."""

    now: datetime
    tenant: str  # name, or id where it is gone
    credential: str
    ready: int  # deliveries that are due and not taken, of everybody
    lease_seconds: float


def explain(context: typer.Context, message_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Tell a message's life in plain words: what happened to each copy, and what it waits for."""
    wanted = parse_id(message_id)
    lease_seconds = settings_of(context).worker_lease_seconds

    async def work(store: Store) -> tuple[Message, Circumstances]:
        message = await store.message(wanted)
        tenants = {tenant.id: tenant.name for tenant in await store.list_tenants()}
        owner = message.summary.tenant_id
        credentials = {c.id: c.username for c in await store.list_credentials(owner)}
        ready = await store.depth()
        return message, Circumstances(
            datetime.now(UTC),
            tenants.get(owner, str(owner)),
            credentials.get(message.summary.credential_id, str(message.summary.credential_id)),
            ready,
            lease_seconds,
        )

    for line in tell(*with_store(context, work)):
        typer.echo(line)


_LANES: Final = {
    Lane.TRANSACTIONAL: " Its lane is transactional: it goes before bulk mail.",
    Lane.BULK: " Its lane is bulk: transactional mail goes before it, but for a fifth of the places.",
}


def tell(message: Message, around: Circumstances) -> Iterator[str]:
    """The lines. Pure."""
    yield _reported(message.summary, around) if _is_report(message) else _accepted(message.summary, around)
    for delivery in message.deliveries:
        yield ""
        yield f"To <{delivery.recipient}>:"
        for attempt in delivery.attempts:
            yield f"  {_attempt(attempt)}"
        if delivery.route is not None:
            yield f"  An operator chose the route {delivery.route}; `messages reroute --route default` undoes that."
        yield f"  {_stands(delivery, around)}"


def _accepted(summary: MessageSummary, around: Circumstances) -> str:
    how = f"with TLS ({summary.tls_suite})" if summary.tls_suite else "with TLS" if summary.tls else "without TLS"
    many = len(summary.recipients)
    return (
        f"{summary.id} was accepted {when(summary.received_at)} from {around.credential} of tenant {around.tenant} at "
        f"{summary.client_address}, {how}: {summary.size_bytes} bytes from <{summary.reverse_path}> to "
        f"{many} {'recipient' if many == 1 else 'recipients'}. It is in the database since before the client heard 250."
        f"{_LANES[summary.lane]}"
    )


def _is_report(message: Message) -> bool:
    """Whether we wrote it (worker/dsn.py). No client submits so: it would be under TLS, and ask for something else."""
    summary = message.summary
    ours = not summary.reverse_path and not summary.tls and summary.client_address == "127.0.0.1"
    return ours and all(delivery.notify is Notify.NEVER for delivery in message.deliveries)


def _reported(summary: MessageSummary, around: Circumstances) -> str:
    whose = f"{around.credential} of tenant {around.tenant}"
    return (
        f"{summary.id} is a report that was written here {when(summary.received_at)} about mail that {whose} sent: "
        f"{summary.size_bytes} bytes from <>. It is in the database since the attempt, or the delay, that it tells of."
    )


def _attempt(attempt: AttemptRecord) -> str:
    began = f"{when(attempt.started_at)} attempt {attempt.number}"
    asked = f" to {attempt.remote}" if attempt.remote else ""
    said = " ".join(part for part in (str(attempt.reply_code or ""), attempt.enhanced_code, attempt.reply_text) if part)
    if attempt.finished_at is None:
        return f"{began}{asked}: it is being sent; the answer is not recorded yet."
    if attempt.outcome is Outcome.UNKNOWN:
        return f"{began}{asked}: sent, but nobody knows whether it was taken ({said})."
    verdict = {
        Outcome.DELIVERED: "taken by the next server",
        Outcome.DEFERRED: "not now",
        Outcome.REFUSED: "refused for good",
    }.get(attempt.outcome, attempt.outcome.name.lower())
    return f"{began}{asked}: {verdict}, {'it' if attempt.reply_code else 'no answer:'} {_quoted(attempt, said)}."


def _quoted(attempt: AttemptRecord, said: str) -> str:
    return f"said {said!r}" if attempt.reply_code else said


def _stands(delivery: Delivery, around: Circumstances) -> str:
    at = when(delivery.finished_at)
    match delivery.state:
        case DeliveryState.QUEUED:
            text = _waits(delivery, around)
        case DeliveryState.SENDING:
            text = (
                f"A worker ({delivery.claimed_by}) has it now. Should that die, another takes over when the lease of "
                f"{around.lease_seconds:g} s has run out."
            )
        case DeliveryState.HELD:
            text = _held(delivery)
        case DeliveryState.DELIVERED:
            text = f"Delivered {at}: the next server has taken responsibility for it."
        case DeliveryState.REFUSED:
            text = f"Given up {at}: it is not tried again."
        case DeliveryState.CANCELLED:
            text = f"Cancelled by an operator {at}: it is never sent."
        case _:
            text = f"It stands at {delivery.state.name.lower()}, which this release does not know."
    return text


def _waits(delivery: Delivery, around: Circumstances) -> str:
    left = delivery.next_attempt_at - around.now
    if left > timedelta(0):
        until = f"Waits until {when(delivery.next_attempt_at)} ({_span(left)} from now)"
        if delivery.waits_for is not None:
            return f"{until}, without an attempt: {delivery.waits_for}."
        why = "its next attempt is due" if delivery.attempts else "its tenant's rate lets it leave"
        return f"{until}, when {why}."
    return (
        f"Ready since {when(delivery.next_attempt_at)} and waits for a worker, as {around.ready} deliveries do in all. "
        "If that number does not fall: is a worker running (`smtp-proxy healthcheck worker`), and keeps up?"
    )


def _held(delivery: Delivery) -> str:
    last = delivery.attempts[-1] if delivery.attempts else None
    if last is not None and last.outcome is Outcome.UNKNOWN:
        why = "since it may have arrived, and its tenant does not want it sent twice"
    else:
        why = "by an operator, or since its tenant was over its rate"
    return f"Held {why}. `smtp-proxy messages release` lets it leave, `messages cancel` ends it."


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"
