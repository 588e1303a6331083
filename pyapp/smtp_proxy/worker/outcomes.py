"""What came of the deliveries, into Postgres: one transaction for everything that finished while the last one ran.

An outcome is kept until it is recorded, however long Postgres is away; its claim is renewed meanwhile, so nobody
delivers the message again. Only then is its stream entry acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from smtp_proxy.errors import StoreError, StoreUnavailable
from smtp_proxy.model.attempt import Kind, Outcome
from smtp_proxy.model.outcome import Consequences
from smtp_proxy.telemetry.metrics import ATTEMPT_KINDS, ATTEMPTS, FENCED, REPORTS
from smtp_proxy.worker.aftermath import NOTHING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from prometheus_client import Counter

    from smtp_proxy.model.attempt import Attempt, Postponed
    from smtp_proxy.model.lane import Lane
    from smtp_proxy.worker.lease import Claim
    from smtp_proxy.worker.ports import MailStore

log = logging.getLogger(__name__)

# One transaction; bounds the parameters of its statement.
BATCH_ATTEMPTS: Final = 2000
_BACKOFF_FIRST_SECONDS: Final = 0.1
# Short: who dies while outcomes wait leaves them unknown, and what was delivered is sent again.
_BACKOFF_MAX_SECONDS: Final = 1.0
_COUNTED = {outcome: ATTEMPTS.labels(outcome.name.lower()) for outcome in Outcome}
_COUNTED_KINDS: dict[Kind, Counter] = {
    kind: ATTEMPT_KINDS.labels(kind.name.lower()) for kind in Kind if kind is not Kind.ACCEPTED
}


@dataclass(eq=False, slots=True)
class Finished:
    """A job that was offered to its next hop."""

    claim: Claim
    attempts: list[Attempt]
    then: Consequences = NOTHING
    postponed: list[Postponed] = field(default_factory=list)
    then_postponed: Consequences = NOTHING


class Outcomes:
    """Records. `recorded` is told of each job that is done with; `lost` of one that the store will not take.

    `publish` takes the ids of reports that were recorded with them.
    """

    def __init__(
        self,
        store: MailStore,
        recorded: Callable[[Finished], None],
        lost: Callable[[Finished], None],
        publish: Callable[[list[UUID], Lane], Awaitable[None]],
    ) -> None:
        self._store = store
        self._publish = publish
        self._recorded = recorded
        self._lost = lost
        self._waiting: list[Finished] = []
        self._wake = asyncio.Event()

    def add(self, finished: Finished) -> None:
        """Record this with the next transaction."""
        self._waiting.append(finished)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._record_until_done(self._take())

    def _take(self) -> list[Finished]:
        attempts = 0
        for count, finished in enumerate(self._waiting):
            attempts += len(finished.attempts) + len(finished.postponed)
            if attempts > BATCH_ATTEMPTS and count:
                break
        else:
            count = len(self._waiting)
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _record_until_done(self, batch: list[Finished]) -> None:
        pause = _BACKOFF_FIRST_SECONDS
        while True:
            try:
                await self._record(batch)
            except StoreUnavailable as error:
                log.warning(
                    "%d outcomes wait for Postgres: %s",
                    len(batch) + len(self._waiting),
                    error,
                    extra={"action": "record_failed", "messages": len(batch) + len(self._waiting)},
                )
                await asyncio.sleep(pause)
                pause = min(pause * 2, _BACKOFF_MAX_SECONDS)
            except StoreError:
                if len(batch) == 1 and (batch[0].then or batch[0].then_postponed):
                    # What was sent is sent; better that its sender hears nothing than that it is sent again.
                    log.exception("a report can not be recorded", extra=_named(batch[0]))
                    batch[0].then = batch[0].then_postponed = NOTHING
                    continue
                if len(batch) == 1:
                    log.exception("an outcome can not be recorded", extra=_named(batch[0]))
                    self._lost(batch[0])
                    return
                for finished in batch:
                    await self._record_until_done([finished])
                return
            else:
                return

    async def _record(self, batch: list[Finished]) -> None:
        attempts = [attempt for finished in batch for attempt in finished.attempts]
        then = Consequences.joined([finished.then for finished in batch if finished.then])
        late = Consequences.joined([finished.then_postponed for finished in batch if finished.then_postponed])
        if postponed := [one for finished in batch for one in finished.postponed]:
            # Asked again after a failure of `record`, it finds nothing.
            await self._store.postpone(postponed, late)
        count = await self._store.record(attempts, then) if attempts else 0
        if count < len(attempts):
            FENCED.inc(len(attempts) - count)
            log.warning(
                "%d outcomes were not recorded: recorded before, or the claim was lost",
                len(attempts) - count,
                extra={"action": "fenced", "attempts": len(attempts) - count},
            )
        for attempt in attempts:
            _COUNTED[attempt.result.outcome].inc()
            if attempt.result.outcome is not Outcome.DELIVERED:
                _COUNTED_KINDS[attempt.result.kind].inc()
        for finished in batch:
            self._recorded(finished)
        if reports := [*then.reports, *late.reports]:
            REPORTS.inc(len(reports))
            for lane in {report.lane for report in reports}:
                await self._publish([report.id for report in reports if report.lane is lane], lane)


def _named(finished: Finished) -> dict[str, object]:
    return {"action": "record_impossible", "envelope_id": finished.claim.job.envelope.id}
