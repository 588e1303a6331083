"""Tells tenants' endpoints what became of their mail, from the outbox in Postgres.

One leader in the fleet (advisory lock). Each endpoint that has something due gets a task of its own, so one that is
slow or dead keeps nobody waiting, and mail least of all: an event is a row, and no delivery waits for it.

Of a message the events go out in their order, each only after the one before was taken. What is not taken is tried
again, later each time, for WEBHOOK_GIVE_UP_SECONDS; then it is given up, kept, and can be replayed. An endpoint that
takes nothing at all is paused as a whole, later each time, and switched off after WEBHOOK_DISABLE_SECONDS: an error in
the log, a count, and the reason in `smtp-proxy webhooks list`.

At least once: a leader that dies between the answer and its record asks again, with the same event id. One that loses
the lead, or leaves, ends its calls and records what was answered: whoever leads next tells the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from smtp_proxy.errors import ConfigurationError, StoreError, StoreUnavailable
from smtp_proxy.model.webhook import Told
from smtp_proxy.telemetry.metrics import WEBHOOK_EVENTS, WEBHOOKS_DISABLED
from smtp_proxy.telemetry.tasks import end, finish
from smtp_proxy.worker.webhook_post import body_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings
    from smtp_proxy.model.webhook import Webhook, WebhookEvent
    from smtp_proxy.sealing import SecretKeys
    from smtp_proxy.store.store import Store
    from smtp_proxy.worker.ports import Leader
    from smtp_proxy.worker.webhook_post import Poster

log = logging.getLogger(__name__)

LEADER_NAME: Final = "webhooks"
_BATCH_EVENTS: Final = 100
_AT_ONCE: Final = 8  # of one endpoint
_FIRST_SECONDS: Final = 5.0
_MAX_SECONDS: Final = 3600.0
# Should a notification be lost.
_LOOK_SECONDS: Final = 60.0
# For the record of what was answered, of one who has to go; and for all that a process does when it leaves.
_RECORD_SECONDS: Final = 2.0
_LEAVE_SECONDS: Final = 5.0


class Webhooks:
    """One candidate for the lead."""

    def __init__(self, settings: Settings, store: Store, poster: Poster, secret_keys: SecretKeys, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._poster = poster
        self._secret_keys = secret_keys
        self._clock = clock
        self._calling: dict[UUID, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Tell while leading; until cancelled."""
        leader = self._store.leader(LEADER_NAME)
        watching = asyncio.create_task(self._watch(), name="webhooks-watch")
        try:
            while True:
                await self._round(leader)
                await asyncio.sleep(self._settings.webhook_interval_seconds)
        finally:
            await finish(self._leave(leader, watching), _LEAVE_SECONDS)

    async def _leave(self, leader: Leader, watching: asyncio.Task[None]) -> None:
        await end([watching, *self._calling.values()])
        await leader.release()

    async def _watch(self) -> None:
        """Every process records events only while it knows of webhooks."""
        changed = asyncio.Event()
        listening = asyncio.create_task(self._store.listen_webhooks(changed.set), name="webhooks-listen")
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), _LOOK_SECONDS)
                changed.clear()
                with contextlib.suppress(StoreUnavailable):  # then events are written as if there were some
                    await self._store.look_for_webhooks()
        finally:
            await end([listening])

    async def _round(self, leader: Leader) -> None:
        if not leader.held:
            # Before Postgres is asked, which may take long: another may lead by now, and be ahead of us.
            await end(self._calling.values())
        try:
            if await leader.try_acquire():
                await self.call_all()
        except StoreError as error:
            log.warning("no webhook is told at present: %s", error, extra={"action": "webhooks_failed"})

    async def call_all(self) -> None:
        """Start a task for each endpoint with something due that has none. Raises StoreUnavailable."""
        self._calling = {key: task for key, task in self._calling.items() if not task.done()}
        for webhook in await self._store.webhooks_to_call():
            if webhook.id not in self._calling:
                name = f"webhook-{webhook.id}"
                self._calling[webhook.id] = asyncio.create_task(self._call(webhook), name=name)

    async def _call(self, webhook: Webhook) -> None:
        try:
            secret = self._secret_keys.open(webhook.sealed, webhook.context)
            while events := await self._store.due_events(webhook.id, _BATCH_EVENTS):
                told: list[Told] = []
                try:
                    await self._tell(webhook, secret, events, told)
                finally:
                    await self._record(told)
                if not await self._judge(webhook, told):
                    return
                webhook = replace(webhook, failing_since=None, failures=0)
        except ConfigurationError as error:
            await self._pause(webhook, str(error))
        except StoreError as error:
            # What was told and is not recorded is told again.
            log.warning("webhook %s: %s", webhook.id, error, extra={"action": "webhook_not_recorded"})
        except Exception:
            log.exception("webhook %s failed in an unforeseen way", webhook.id, extra={"action": "webhook_crashed"})

    async def _tell(self, webhook: Webhook, secret: bytes, events: Sequence[WebhookEvent], told: list[Told]) -> None:
        """Fill `told` with what is answered; none of the calls outlasts this one."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def tell(event: WebhookEvent) -> None:
            async with turns:
                if len(told) >= _AT_ONCE and not any(each.taken for each in told):
                    return  # Nothing of the first ones was taken: the rest waits for another time.
                one = await self._post(webhook, secret, event)
                told.append(one)
            WEBHOOK_EVENTS.labels("taken" if one.taken else "again" if one.again_at else "given_up").inc()

        async with asyncio.TaskGroup() as calls:
            for event in events:
                calls.create_task(tell(event))

    async def _post(self, webhook: Webhook, secret: bytes, event: WebhookEvent) -> Told:
        now = int(self._clock.now().timestamp())
        try:
            error = await self._poster.post(webhook.url, secret, event.id, body_of(event), now)
        except Exception as unforeseen:
            log.exception(
                "webhook %s was not told of %s", webhook.id, event.id, extra={"action": "webhook_event_crashed"}
            )
            error = f"unforeseen: {type(unforeseen).__name__}"
        return Told(event, error, self._again_at(webhook, event) if error else None)

    async def _record(self, told: Sequence[Told]) -> None:
        """Whoever has to go has a moment for it."""
        if told:
            await finish(self._store.settle_events(told), _RECORD_SECONDS)

    def _again_at(self, webhook: Webhook, event: WebhookEvent) -> datetime | None:
        now = self._clock.now()
        if now - event.tried_since(webhook) > timedelta(seconds=self._settings.webhook_give_up_seconds):
            return None
        return now + timedelta(seconds=backoff_seconds(event.tries + 1, random.random()))  # noqa: S311

    async def _judge(self, webhook: Webhook, told: Sequence[Told]) -> bool:
        """Keep how it fares; False: leave it alone for now."""
        if any(each.taken for each in told):
            if webhook.failing_since is not None:
                await self._store.judge_webhook(webhook.id)
            return True
        await self._pause(webhook, told[0].error if told else "")
        return False

    async def _pause(self, webhook: Webhook, error: str) -> None:
        now, failures = self._clock.now(), webhook.failures + 1
        since = webhook.failing_since or now
        disabled = now - since > timedelta(seconds=self._settings.webhook_disable_seconds)
        pause = timedelta(seconds=backoff_seconds(failures, random.random()))  # noqa: S311
        kept = False
        with contextlib.suppress(StoreUnavailable):
            kept = await self._store.judge_webhook(
                webhook.id,
                failing_since=since,
                failures=failures,
                paused_until=now + pause,
                disabled_at=now if disabled else None,
                error=error,
                seen=webhook,  # An operator may have enabled it while it was being called.
            )
        if kept and disabled:
            _tell_disabled(webhook, since, error)


def _tell_disabled(webhook: Webhook, since: datetime, error: str) -> None:
    WEBHOOKS_DISABLED.inc()
    log.error(
        "webhook %s of tenant %s is switched off: %s has taken nothing since %s: %s",
        webhook.id,
        webhook.tenant_id,
        urlsplit(webhook.url).hostname,  # The rest of it may hold a secret.
        since,
        error,
        extra={"action": "webhook_disabled"},
    )


def backoff_seconds(tries: int, chance: float) -> float:
    """5 s, 10 s, 20 s, … up to an hour, each up to a fifth longer or shorter. `chance` is in [0, 1)."""
    delay: float = min(_FIRST_SECONDS * 2.0 ** min(tries - 1, 20), _MAX_SECONDS)
    return delay * (0.8 + 0.4 * chance)
