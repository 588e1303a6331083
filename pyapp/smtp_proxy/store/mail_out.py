"""Mail on its way out: claimed, its lease renewed, what became of it recorded, swept when due. A part of `Store`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from smtp_proxy.model.attempt import Attempt, Postponed, Sending
from smtp_proxy.model.envelope import Job
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.outcome import Consequences
from smtp_proxy.store import claim, consequences, record
from smtp_proxy.store.queries import QUERIES, affected
from smtp_proxy.store.retention import forget_settled
from smtp_proxy.store.webhooks import tell
from smtp_proxy.telemetry.metrics import UNKNOWN_OUTCOMES

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from smtp_proxy.config import Settings
    from smtp_proxy.store.pool import Connection

log = logging.getLogger(__name__)

# What one claim may load into a worker's memory, bytes; what is beyond goes back to the queue.
CLAIM_MAX_BYTES: Final = 64 * 1024 * 1024
# Counting is work for each: when so much waits, nobody asks how much exactly.
_DEPTH_COUNTED = 200_000


class MailOut:
    """A part of `Store`, which brings the connections."""

    _settings: Settings
    _webhooks_about: bool
    _privacy_about: bool

    def _connection(self, doing: str) -> AbstractAsyncContextManager[Connection]:
        raise NotImplementedError

    async def claim(
        self, envelope_ids: Sequence[UUID], worker_id: UUID, lease_seconds: float, *, max_bytes: int = CLAIM_MAX_BYTES
    ) -> list[Job]:
        """Take the queued and due deliveries of these envelopes for this worker, with their bodies.

        What another worker is just claiming is skipped. At least one envelope is returned if any can be claimed; what
        would exceed `max_bytes` goes back and is found by the next sweep.
        """
        if not envelope_ids:
            return []
        async with self._connection("claiming mail") as connection:
            return await claim.claim(connection, envelope_ids, worker_id, timedelta(seconds=lease_seconds), max_bytes)

    async def renew(self, envelope_ids: Sequence[UUID], worker_id: UUID, lease_seconds: float) -> dict[UUID, bool]:
        """Push the lease of what this worker holds of these; says of each envelope whether that was all of it.

        False: others hold a delivery of it just now, so its lease stays as it was. What is no longer this worker's is
        not there.
        """
        if not envelope_ids:
            return {}
        values = (envelope_ids, min(envelope_ids), max(envelope_ids), worker_id, timedelta(seconds=lease_seconds))
        async with self._connection("renewing leases") as connection:
            rows = await connection.fetch(QUERIES["renew"], *values)
        return {row["envelope_id"]: row["whole"] for row in rows}

    async def record(self, attempts: Sequence[Attempt], then: Consequences | None = None) -> int:
        """Store attempts and settle or re-queue their deliveries; returns how many were still this worker's.

        An attempt whose claim was lost meanwhile (lease ran out) is left out: fencing. `then` is done in the same
        transaction, for the attempts that stand recorded.
        """
        if not attempts:
            return 0
        async with self._connection("recording attempts") as connection:
            if not (then or self._webhooks_about or self._privacy_about):
                return affected(await connection.execute(QUERIES["record"], *record.columns(attempts)))
            async with connection.transaction():
                count = affected(await connection.execute(QUERIES["record"], *record.columns(attempts)))
                if then:
                    places = await consequences.recorded(connection, attempts, then)
                    await consequences.write(connection, places, then, self._sweep_after)
                if self._webhooks_about:
                    await tell(connection, attempts)
                if self._privacy_about:
                    await forget_settled(connection, [attempt.envelope_id for attempt in attempts])
        return count

    async def postpone(self, postponed: Sequence[Postponed], then: Consequences | None = None) -> int:
        """Queue these again without an attempt; returns how many were still claimed by that worker.

        `then` is done in the same transaction, for those.
        """
        if not postponed:
            return 0
        async with self._connection("postponing") as connection, connection.transaction():
            rows = await connection.fetch(QUERIES["postpone"], *record.postponed_columns(postponed))
            if then:
                places = {(row["envelope_id"], row["recipient_number"]) for row in rows}
                await consequences.write(connection, places, then, self._sweep_after)
        return len(rows)

    async def sending(self, sendings: Sequence[Sending]) -> set[tuple[UUID, int]]:
        """Write down that these are about to be sent for good; returns (envelope, recipient) of those still claimed.

        Such an attempt is of unknown outcome until it is recorded. Given back to the queue before that, it counts as
        one, and is tried again or held by its tenant's policy.
        """
        if not sendings:
            return set()
        async with self._connection("writing down what is sent") as connection:
            rows = await connection.fetch(QUERIES["sending"], *record.sending_columns(sendings))
        return {(row["envelope_id"], row["recipient_number"]) for row in rows}

    async def release(self, worker_id: UUID) -> dict[UUID, Lane]:
        """Give back all that this worker has claimed and not recorded; returns the envelopes, for publishing.

        Those among them that may have been sent are counted, and may be held now: see `sending`.
        """
        longest = timedelta(seconds=self._settings.worker_lease_seconds)
        async with self._connection("releasing claims") as connection:
            rows = await connection.fetch(QUERIES["release"], worker_id, longest)
            released = {row["envelope_id"]: Lane(row["lane"]) for row in rows}
            await _count_unknown(connection, list(released))
        return released

    async def sweep(self, limit: int, sweep_after_seconds: float, lane: Lane = Lane.TRANSACTIONAL) -> list[UUID]:
        """Deliveries of a lane that are due and untaken, or whose lease ran out: queued, and returned for publishing.

        A quarter of them became due last, the rest have been due for longest. `limit` counts deliveries. They are left
        alone for `sweep_after_seconds`, so that the stream can do its work.
        """
        async with self._connection("sweeping") as connection:
            rows = await connection.fetch(QUERIES["sweep"], limit, timedelta(seconds=sweep_after_seconds), lane)
            await _count_unknown(connection, _distinct([row for row in rows if row["was_taken"]]))
        return _distinct(rows)

    async def depth(self) -> int:
        """Deliveries that are queued and due; no more are counted than twice what closes the gate, 200,000 at least."""
        most = max(_DEPTH_COUNTED, 2 * self._settings.ingress_ready_depth_high)
        async with self._connection("counting the queue") as connection:
            ahead = timedelta(seconds=self._settings.sweep_after_seconds)
            return int(await connection.fetchval(QUERIES["depth"], ahead, most))

    async def backlog_age_seconds(self) -> float:
        """For how long the oldest delivery that is due has waited; of no more of them than `depth` counts."""
        async with self._connection("looking how old the queue is") as connection:
            ahead = timedelta(seconds=self._settings.sweep_after_seconds)
            return float(await connection.fetchval(QUERIES["backlog_age"], ahead, _DEPTH_COUNTED))

    @property
    def _sweep_after(self) -> timedelta:
        return timedelta(seconds=self._settings.sweep_after_seconds)


async def _count_unknown(connection: Connection, given_back: Sequence[UUID]) -> None:
    """Of these, given back a moment ago, count the attempts that nobody knows the outcome of."""
    if given_back:
        query = QUERIES["settled_unknown"]
        count = await connection.fetchval(query, given_back, min(given_back), max(given_back))
        if count:
            UNKNOWN_OUTCOMES.inc(count)
            log.warning("%d attempts ended with an unknown outcome", count, extra={"action": "outcome_unknown"})


def _distinct(rows: Sequence[Any]) -> list[UUID]:
    """Envelope ids, each once, in the order they came."""
    return list(dict.fromkeys(row["envelope_id"] for row in rows))
