"""Webhooks and what they are still to be told (the outbox): a part of `Store`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from smtp_proxy.model.webhook import EVENTS_COUNTED, Told, Webhook, WebhookEvent
from smtp_proxy.sealing import Sealed
from smtp_proxy.store.accounts import present
from smtp_proxy.store.listen import WEBHOOKS_CHANNEL, listen
from smtp_proxy.store.queries import QUERIES, affected

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import asyncpg

    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings
    from smtp_proxy.model.attempt import Attempt
    from smtp_proxy.store.pool import Connection

_ERROR_MAX = 500
# Events that one statement of an operator's command looks at.
_BATCH: Final = 1000
_LOWEST: Final = UUID(int=0)
_WAITS, _TAKEN, _GIVEN_UP = 0, 1, 2


class Webhooks:
    """A part of `Store`, which brings the connections."""

    _settings: Settings
    _clock: Clock
    # Whether anybody is to be told of attempts; until it is known, attempts are recorded as if.
    _webhooks_about: bool = True
    _privacy_about: bool = True

    def _connection(self, doing: str) -> AbstractAsyncContextManager[Connection]:
        raise NotImplementedError

    async def add_webhook(self, webhook: Webhook) -> None:
        """Keep a new one."""
        values = (webhook.url, list(webhook.events), webhook.sealed.data, webhook.sealed.key_id)
        async with self._connection("adding a webhook") as connection:
            await connection.execute(QUERIES["add_webhook"], webhook.id, webhook.tenant_id, *values, webhook.created_at)

    async def list_webhooks(self, tenant_id: UUID | None = None) -> list[Webhook]:
        """Of one tenant or of all, oldest first."""
        async with self._connection("listing webhooks") as connection:
            return [_webhook(row) for row in await connection.fetch(QUERIES["list_webhooks"], tenant_id)]

    async def remove_webhook(self, webhook_id: UUID) -> None:
        """With all that it is still to be told, in batches; what is left when that is broken off goes with its day.

        Raises NotFound.
        """
        doing, count = "removing a webhook", _BATCH
        async with self._connection(doing) as connection:
            present(await connection.fetchrow(QUERIES["remove_webhook"], webhook_id), f"webhook {webhook_id}")
        while count == _BATCH:
            async with self._connection(doing) as connection:
                count = affected(await connection.execute(QUERIES["remove_webhook_events"], webhook_id, _BATCH))

    async def reseal_webhook(self, webhook: Webhook, sealed: Sealed) -> bool:
        """Put another seal in place of the one it has; False: it has another one by now, or is gone."""
        values = (webhook.id, webhook.sealed.data, sealed.key_id, sealed.data)
        async with self._connection("sealing a secret anew") as connection:
            return await connection.fetchrow(QUERIES["reseal_webhook"], *values) is not None

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
        """Keep how its endpoint fares. All at their defaults: well, and on.

        `seen`: only if it still fares as it did there. False: it does not (somebody enabled it, say), or is gone.
        """
        values = (failing_since, failures, paused_until, disabled_at, error[:_ERROR_MAX])
        as_it_was = (True, seen.failures, seen.failing_since) if seen is not None else (False, 0, None)
        async with self._connection("judging a webhook") as connection:
            return await connection.fetchrow(QUERIES["judge_webhook"], webhook_id, *values, *as_it_was) is not None

    async def enable_webhook(self, webhook_id: UUID) -> None:
        """Go on with it, and give what waits its whole time anew. Raises NotFound."""
        async with self._connection("enabling a webhook") as connection:
            present(await connection.fetchrow(QUERIES["enable_webhook"], webhook_id), f"webhook {webhook_id}")

    async def look_for_webhooks(self) -> None:
        """Learn whether there is any, and any tenant without kept content; `record` then goes by that."""
        async with self._connection("looking for webhooks") as connection:
            self._webhooks_about = bool(await connection.fetchval(QUERIES["any_webhooks"]))
            self._privacy_about = bool(await connection.fetchval(QUERIES["any_privacy"]))

    async def listen_webhooks(self, callback: Callable[[], None]) -> None:
        """Call back when webhooks may have changed. Runs until cancelled; reconnects by itself."""
        await listen(self._settings, WEBHOOKS_CHANNEL, callback)

    # -- the outbox

    async def webhooks_to_call(self) -> list[Webhook]:
        """Those that are enabled, not paused, and have an event that is due."""
        async with self._connection("looking for due events") as connection:
            return [_webhook(row) for row in await connection.fetch(QUERIES["webhooks_to_call"])]

    async def due_events(self, webhook_id: UUID, limit: int) -> list[WebhookEvent]:
        """The longest due first, and of each message the first alone that waits."""
        async with self._connection("reading due events") as connection:
            return [_event(row) for row in await connection.fetch(QUERIES["due_events"], webhook_id, limit)]

    async def settle_events(self, told: Sequence[Told]) -> None:
        """Keep how it went, of what still waits. What is tried again takes the later events of its message along."""
        async with self._connection("recording what webhooks were told") as connection:
            await connection.execute(
                QUERIES["settle_events"],
                [t.event.envelope_id for t in told],
                [t.event.webhook_id for t in told],
                [t.event.recipient_number for t in told],
                [t.event.attempt_number for t in told],
                [_TAKEN if t.taken else _WAITS if t.again_at else _GIVEN_UP for t in told],
                [t.again_at for t in told],
                [t.error[:_ERROR_MAX] for t in told],
            )

    async def replay_events(
        self,
        webhook_id: UUID,
        *,
        since: datetime | None = None,
        envelope_id: UUID | None = None,
        everything: bool = False,
        batch: int = _BATCH,
    ) -> AsyncIterator[int]:
        """Let those wait again that were given up (`everything`: those that were taken too), the oldest messages first.

        Yields how many each time. Each batch is a transaction of its own and looks at some `batch` events, and at all
        those of a message; what is done stays so.
        """
        statement = QUERIES["replay_all" if everything else "replay_given_up"]
        after = _LOWEST if envelope_id is None else UUID(int=max(envelope_id.int - 1, 0))
        until = envelope_id
        while True:
            async with self._connection("replaying events") as connection:
                if envelope_id is None:
                    until = await _until(connection, webhook_id, after, batch, everything=everything)
                if until is None:
                    return
                count = affected(await connection.execute(statement, webhook_id, after, until, since))
            yield count
            if envelope_id is not None:
                return
            after = until

    async def event_counts(
        self, webhook_ids: Sequence[UUID], *, most: int = EVENTS_COUNTED
    ) -> dict[UUID, tuple[int, int]]:
        """How many events wait, and how many were given up, of each of these that has any; counted up to `most`."""
        counts: dict[UUID, tuple[int, int]] = {}
        for webhook_id in webhook_ids:
            async with self._connection("counting events") as connection:
                row = await connection.fetchrow(QUERIES["event_counts"], webhook_id, most)
            if row is not None and (row["waiting"] or row["given_up"]):
                counts[webhook_id] = (row["waiting"], row["given_up"])
        return counts


async def _until(connection: Connection, webhook_id: UUID, after: UUID, batch: int, *, everything: bool) -> UUID | None:
    """With which message the next batch ends; None: there is nothing more."""
    if everything:
        until: UUID | None = await connection.fetchval(QUERIES["events_until"], after, batch)
    else:
        until = await connection.fetchval(QUERIES["given_up_until"], webhook_id, after, batch)
    return until


async def tell(connection: Connection, attempts: Sequence[Attempt]) -> None:
    """Write events for those of these attempts that were recorded; in the transaction that recorded them."""
    ids = [a.envelope_id for a in attempts]
    numbers = ([a.result.number for a in attempts], [a.number for a in attempts], [a.worker_id for a in attempts])
    await connection.execute(QUERIES["tell_webhooks"], ids, *numbers, min(ids), max(ids))


def _webhook(row: asyncpg.Record) -> Webhook:
    values: dict[str, Any] = dict(row)
    sealed = Sealed(values.pop("secret_key_id"), values.pop("sealed_secret"))
    return Webhook(**{**values, "events": tuple(row["events"])}, sealed=sealed)


def _event(row: asyncpg.Record) -> WebhookEvent:
    return WebhookEvent(**{**dict(row), "payload": json.loads(row["payload"])})
