"""Webhooks and their outbox of the store in memory, with the same rules as in `Store`."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from smtp_proxy.clock import Clock
from smtp_proxy.errors import NotFound
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.webhook import EVENTS_COUNTED, Event, Told, Webhook, WebhookEvent
from smtp_proxy.sealing import Sealed
from smtp_proxy.store.memory_domains import MemoryDomains

if TYPE_CHECKING:
    from smtp_proxy.model.attempt import Attempt
    from smtp_proxy.model.envelope import Envelope

_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(slots=True)
class _Kept:
    event: WebhookEvent
    due_at: datetime
    state: int = 0


class MemoryWebhooks(MemoryDomains):
    """A part of MemoryStore."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self._webhooks: dict[UUID, Webhook] = {}
        self._webhook_callbacks: list[Callable[[], None]] = []
        self._events: dict[tuple[UUID, UUID, int, int], _Kept] = {}
        self._sequence = itertools.count(1)

    async def add_webhook(self, webhook: Webhook) -> None:
        self._reachable()
        self._webhooks[webhook.id] = webhook
        self._notify_webhooks()

    async def list_webhooks(self, tenant_id: UUID | None = None) -> list[Webhook]:
        self._reachable()
        found = sorted(self._webhooks.values(), key=lambda w: (w.created_at, w.id))
        return [w for w in found if tenant_id in (None, w.tenant_id)]

    async def remove_webhook(self, webhook_id: UUID) -> None:
        self._reachable()
        if self._webhooks.pop(webhook_id, None) is None:
            raise NotFound
        self._events = {key: kept for key, kept in self._events.items() if key[1] != webhook_id}
        self._notify_webhooks()

    async def reseal_webhook(self, webhook: Webhook, sealed: Sealed) -> bool:
        self._reachable()
        kept = self._webhooks.get(webhook.id)
        if kept is None or kept.sealed.data != webhook.sealed.data:
            return False
        self._webhooks[webhook.id] = replace(kept, sealed=sealed)
        return True

    async def judge_webhook(
        self,
        webhook_id: UUID,
        *,
        failing_since: datetime | None = None,
        failures: int = 0,
        paused_until: datetime | None = None,
        disabled_at: datetime | None = None,
        error: str = "",
        seen: Webhook | None = None,
    ) -> bool:
        self._reachable()
        kept = self._webhooks.get(webhook_id)
        if kept is None:
            return False
        if seen is not None and (kept.failures, kept.failing_since) != (seen.failures, seen.failing_since):
            return False
        self._webhooks[webhook_id] = replace(
            kept,
            failing_since=failing_since,
            failures=failures,
            paused_until=paused_until,
            disabled_at=disabled_at,
            last_error=error,
        )
        self._notify_webhooks()
        return True

    async def enable_webhook(self, webhook_id: UUID) -> None:
        if not await self.judge_webhook(webhook_id):
            raise NotFound
        self._webhooks[webhook_id] = replace(self._webhooks[webhook_id], enabled_at=self._clock.now())

    async def look_for_webhooks(self) -> None:
        self._reachable()

    async def listen_webhooks(self, callback: Callable[[], None]) -> None:
        self._webhook_callbacks.append(callback)
        try:
            callback()
            await asyncio.Event().wait()
        finally:
            self._webhook_callbacks.remove(callback)

    # -- the outbox

    async def webhooks_to_call(self) -> list[Webhook]:
        now = self._clock.now()
        due = {kept.event.webhook_id for kept in self._events.values() if kept.state == 0 and kept.due_at <= now}
        return [
            w
            for w in await self.list_webhooks()
            if w.id in due and w.disabled_at is None and (w.paused_until is None or w.paused_until <= now)
        ]

    async def due_events(self, webhook_id: UUID, limit: int) -> list[WebhookEvent]:
        self._reachable()
        now = self._clock.now()
        waiting = [k for k in self._events.values() if k.event.webhook_id == webhook_id and k.state == 0]
        first: dict[UUID, int] = {}
        for kept in waiting:
            first[kept.event.envelope_id] = min(
                kept.event.sequence, first.get(kept.event.envelope_id, kept.event.sequence)
            )
        heads = [k for k in waiting if k.event.sequence == first[k.event.envelope_id] and k.due_at <= now]
        return [k.event for k in sorted(heads, key=lambda k: (k.due_at, k.event.sequence))[:limit]]

    async def settle_events(self, told: Sequence[Told]) -> None:
        self._reachable()
        for each in told:
            event = each.event
            kept = self._events[event.envelope_id, event.webhook_id, event.recipient_number, event.attempt_number]
            if kept.state != 0:
                continue
            kept.state = 1 if each.taken else 0 if each.again_at else 2
            kept.event = replace(kept.event, tries=kept.event.tries + 1)
            if each.again_at is not None:
                kept.due_at = each.again_at
                for other in self._events.values():
                    if (other.event.envelope_id, other.event.webhook_id) == (event.envelope_id, event.webhook_id):
                        other.due_at = max(other.due_at, each.again_at)

    async def replay_events(
        self,
        webhook_id: UUID,
        *,
        since: datetime | None = None,
        envelope_id: UUID | None = None,
        everything: bool = False,
        batch: int = 1000,
    ) -> AsyncIterator[int]:
        self._reachable()
        states = (1, 2) if everything else (2,)
        found = [
            kept
            for kept in self._events.values()
            if kept.event.webhook_id == webhook_id
            and kept.state in states
            and (since is None or kept.event.occurred_at >= since)
            and envelope_id in (None, kept.event.envelope_id)
        ]
        for start in range(0, len(found), batch):
            for kept in found[start : start + batch]:
                now = self._clock.now()
                kept.state, kept.due_at, kept.event = 0, now, replace(kept.event, tries=0, replayed_at=now)
            yield len(found[start : start + batch])

    async def event_counts(
        self, webhook_ids: Sequence[UUID], *, most: int = EVENTS_COUNTED
    ) -> dict[UUID, tuple[int, int]]:
        self._reachable()
        counts: dict[UUID, tuple[int, int]] = {}
        for webhook_id in webhook_ids:
            states = Counter(kept.state for kept in self._events.values() if kept.event.webhook_id == webhook_id)
            if states[0] or states[2]:
                counts[webhook_id] = (min(states[0], most), min(states[2], most))
        return counts

    # -- below

    def _has_events(self, envelope_id: UUID, since: datetime) -> bool:
        """As the statement `with_events`, for one message."""
        return any(
            kept.state == 0 and max(kept.event.occurred_at, kept.due_at) > since
            for key, kept in self._events.items()
            if key[0] == envelope_id
        )

    def _tell(self, attempt: Attempt, envelope: Envelope, recipient: str, *, held: bool) -> None:
        """As the statement `tell_webhooks`, for an attempt that was recorded."""
        event = _event_of(attempt, held=held)
        payload = _payload(attempt, envelope, recipient, event)
        for webhook in self._wanting(event, envelope):
            key = (envelope.id, webhook.id, attempt.result.number, attempt.number)
            self._keep_event(key, event, attempt.finished_at, payload)

    def _tell_change(
        self, event: Event, envelope: Envelope, number: int, recipient: str, *, due_at: datetime | None = None
    ) -> None:
        """As the statement `tell_changes`. `due_at`: of what is queued by it."""
        payload = _framed(event, envelope, recipient, None, due_at)
        for webhook in self._wanting(event, envelope):
            told = [key[3] for key in self._events if key[:3] == (envelope.id, webhook.id, number)]
            self._keep_event((envelope.id, webhook.id, number, min([0, *told]) - 1), event, self._clock.now(), payload)

    def _wanting(self, event: Event, envelope: Envelope) -> list[Webhook]:
        return [
            webhook
            for webhook in self._webhooks.values()
            if webhook.tenant_id == envelope.tenant_id
            and webhook.disabled_at is None
            and (not webhook.events or event in webhook.events)
        ]

    def _keep_event(
        self, key: tuple[UUID, UUID, int, int], event: Event, at: datetime, payload: dict[str, object]
    ) -> None:
        told = WebhookEvent(*key, next(self._sequence), event, at, payload)
        self._events.setdefault(key, _Kept(told, self._clock.now()))

    def _notify_webhooks(self) -> None:
        for callback in self._webhook_callbacks:
            callback()


def _event_of(attempt: Attempt, *, held: bool) -> Event:
    result = attempt.result
    if result.outcome is Outcome.DELIVERED:
        return Event.DELIVERED
    if result.outcome is Outcome.REFUSED:
        return Event.EXPIRED if result.enhanced_code == "5.4.7" else Event.BOUNCED
    return Event.HELD if held else Event.DEFERRED


def _payload(attempt: Attempt, envelope: Envelope, recipient: str, event: Event) -> dict[str, object]:
    result = attempt.result
    said: dict[str, object] = {
        "number": attempt.number,
        "reply_code": result.reply_code,
        "enhanced_code": result.enhanced_code,
        "reply_text": result.reply_text,
        "remote": result.remote,
    }
    return _framed(event, envelope, recipient, said, attempt.next_attempt_at if event is Event.DEFERRED else None)


def _framed(
    event: Event, envelope: Envelope, recipient: str, attempt: dict[str, object] | None, again: datetime | None
) -> dict[str, object]:
    return {
        "event": event.value,
        "message": {
            "id": str(envelope.id),
            "tenant_id": str(envelope.tenant_id),
            "from": envelope.reverse_path,
            "received_at": envelope.received_at.astimezone(UTC).strftime(_TIME),
        },
        "recipient": recipient,
        "attempt": attempt,
        "next_attempt_at": again.astimezone(UTC).strftime(_TIME) if again is not None else None,
    }
