"""`/api/v1/messages`: what became of the mail of the caller's tenant, and what is to become of what waits."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from smtp_proxy.api.access import Caller, allowed
from smtp_proxy.api.problems import PROBLEM, Problem
from smtp_proxy.errors import NotFound
from smtp_proxy.model.api_key import ApiScope
from smtp_proxy.model.change import Change
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.model.message import AttemptRecord, Delivery, Message, MessageSummary

log = logging.getLogger(__name__)

router = APIRouter(prefix="/api/v1/messages", tags=["messages"])

# Whoever asks for what is rare among much has it in several requests, and holds nobody up.
_LISTING_SECONDS = 3.0
State = Literal["queued", "sending", "delivered", "refused", "held", "cancelled"]
Reader = Annotated[Caller, Depends(allowed(ApiScope.MESSAGES_READ))]
Writer = Annotated[Caller, Depends(allowed(ApiScope.MESSAGES_WRITE))]


class RecipientOut(BaseModel):
    """A recipient and how far its copy is."""

    recipient: str
    state: str


class MessageFacts(BaseModel):
    """What is known of any message."""

    id: UUID
    reverse_path: str = Field(description="Empty: a bounce.")
    size_bytes: int
    received_at: datetime
    lane: str


class MessageLine(MessageFacts):
    """One message in a list."""

    recipients: list[RecipientOut]


class MessagePage(BaseModel):
    """Newest first. `next`: what to give as `before` for the next page; null: this is the last.

    A page may be short, or empty, and not the last: a rare state is looked for no longer than some seconds at a time.
    """

    messages: list[MessageLine]
    next: UUID | None


class AttemptOut(BaseModel):
    """One attempt to deliver. `outcome` "unknown": it was sent, perhaps, and no answer came."""

    number: int
    outcome: str
    kind: str
    reply_code: int = Field(description="0: no reply came.")
    enhanced_code: str
    reply_text: str
    remote: str
    started_at: datetime
    finished_at: datetime | None


class DeliveryOut(RecipientOut):
    """A recipient's copy, with what was tried."""

    attempt_count: int
    next_attempt_at: datetime | None = Field(description="Null: it is not tried again.")
    finished_at: datetime | None
    waits_for: str | None = Field(description="Why it was put back without an attempt.")
    attempts: list[AttemptOut]


class MessageOut(MessageFacts):
    """Everything that is known of one message."""

    deliveries: list[DeliveryOut]


@router.get("")
async def list_messages(
    caller: Reader,
    state: Annotated[State | None, Query(description="Of some recipient.")] = None,
    before: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> MessagePage:
    """List the tenant's messages, newest first."""
    wanted = DeliveryState[state.upper()] if state is not None else None
    tenant_id = caller.key.tenant_id
    found, following = await caller.desk.store.page_of_messages(
        tenant_id=tenant_id, state=wanted, limit=limit, before=before, patience_seconds=_LISTING_SECONDS
    )
    return MessagePage(messages=[_line(summary) for summary in found], next=following)


@router.get("/{message_id}")
async def show_message(caller: Reader, message_id: UUID) -> MessageOut:
    """Show one message: its recipients, and each attempt to deliver it."""
    return _shown(await _of(caller, message_id))


@router.post("/{message_id}/{change}", responses={409: PROBLEM})
async def change_message(caller: Writer, message_id: UUID, change: Change) -> MessageOut:
    """Hold, release or cancel what of a message is not delivered; shows it afterwards.

    409: it has nothing that this applies to. What a worker has in hand just then is left as it is.
    """
    await _of(caller, message_id)
    if message_id not in await caller.desk.store.change(change, [message_id]):
        raise Problem(
            409, f"{change} does not apply: no copy of this message stands so that it could, or a worker has it in hand"
        )
    who = {"tenant": caller.key.tenant, "key": caller.key.name, "envelope_id": str(message_id)}
    log.info("%s", change, extra={"action": f"message_{change}", **who})
    return _shown(await _of(caller, message_id))


async def _of(caller: Caller, message_id: UUID) -> Message:
    try:
        found = await caller.desk.store.message(message_id)
    except NotFound:
        found = None
    if found is None or found.summary.tenant_id != caller.key.tenant_id:
        raise Problem(404, f"there is no message {message_id}")
    return found


def _facts(summary: MessageSummary) -> dict[str, Any]:
    names = ("id", "reverse_path", "size_bytes", "received_at")
    return {**{name: getattr(summary, name) for name in names}, "lane": summary.lane.name.lower()}


def _line(summary: MessageSummary) -> MessageLine:
    pairs = zip(summary.recipients, summary.states, strict=True)
    recipients = [RecipientOut(recipient=recipient, state=state.name.lower()) for recipient, state in pairs]
    return MessageLine(**_facts(summary), recipients=recipients)


def _shown(message: Message) -> MessageOut:
    return MessageOut(**_facts(message.summary), deliveries=[_delivery(each) for each in message.deliveries])


def _delivery(delivery: Delivery) -> DeliveryOut:
    waits = delivery.state in (DeliveryState.QUEUED, DeliveryState.SENDING)
    return DeliveryOut(
        recipient=delivery.recipient,
        state=delivery.state.name.lower(),
        attempt_count=delivery.attempt_count,
        next_attempt_at=delivery.next_attempt_at if waits else None,
        finished_at=delivery.finished_at,
        waits_for=delivery.waits_for if waits else None,
        attempts=[_attempt(each) for each in delivery.attempts],
    )


def _attempt(attempt: AttemptRecord) -> AttemptOut:
    return AttemptOut(
        number=attempt.number,
        outcome=attempt.outcome.name.lower(),
        kind=attempt.kind.name.lower(),
        reply_code=attempt.reply_code,
        enhanced_code=attempt.enhanced_code,
        reply_text=attempt.reply_text,
        remote=attempt.remote,
        started_at=attempt.started_at,
        finished_at=attempt.finished_at,
    )
