"""What is about to be sent for good, into Postgres before it is: one transaction for all that wait.

Only so can a crash between a final dot and its record be told from one before. Nobody sends before it is written down,
nor after the claim was lost; while Postgres is away the message waits, for as long as the claim is surely ours.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from smtp_proxy.errors import StoreError, StoreUnavailable
from smtp_proxy.model.attempt import Sending

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from smtp_proxy.clock import Clock
    from smtp_proxy.worker.lease import Claim
    from smtp_proxy.worker.ports import MailStore

log = logging.getLogger(__name__)

# From one transaction to the next: one that comes after a pause goes at once, many share a transaction.
_GATHER_SECONDS: Final = 0.001
_AGAIN_SECONDS: Final = 0.25
# Rows in one transaction.
_BATCH: Final = 2000


class AttemptLedger:
    """One per worker. `holds` says whether a claim is surely still ours."""

    def __init__(self, store: MailStore, holds: Callable[[Claim], bool], clock: Clock) -> None:
        self._store = store
        self._holds = holds
        self._clock = clock
        self._waiting: list[_Entry] = []
        self._wake = asyncio.Event()

    def of(self, claim: Claim) -> JobLedger:
        """The ledger of one job; see `delivery.transport.Ledger`."""
        return JobLedger(self, claim)

    async def write(self, claim: Claim, sendings: list[Sending]) -> bool:
        """Wait until these are committed. False: the claim was lost."""
        entry = _Entry(claim, sendings)
        self._waiting.append(entry)
        self._wake.set()
        return await entry.answer

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
                await self._write(batch)
            await asyncio.sleep(_GATHER_SECONDS)

    def sendings(self, claim: Claim, numbers: Sequence[int], remote: str) -> list[Sending]:
        """Of these recipients of a job, as they are written down."""
        envelope, now = claim.job.envelope, self._clock.now()
        worker_id = claim.lease.worker_id
        return [
            Sending(envelope.id, envelope.tenant_id, r.number, r.attempt_number, worker_id, now, remote)
            for r in claim.job.recipients
            if r.number in numbers
        ]

    async def _write(self, batch: list[_Entry]) -> None:
        while batch := self._still_ours(batch):
            try:
                written = await self._store.sending([sending for entry in batch for sending in entry.sendings])
            except StoreUnavailable as error:
                log.warning("nothing is sent: %s", error, extra={"action": "ledger_failed"})
                await asyncio.sleep(_AGAIN_SECONDS)
            except StoreError:
                log.exception("what is sent can not be written down", extra={"action": "ledger_refused"})
                for entry in batch:
                    entry.tell(wrote=False)
                return
            else:
                for entry in batch:
                    entry.tell(wrote=all((s.envelope_id, s.recipient_number) in written for s in entry.sendings))
                return

    def _still_ours(self, batch: list[_Entry]) -> list[_Entry]:
        ours = []
        for entry in batch:
            if self._holds(entry.claim):
                ours.append(entry)
            else:
                entry.tell(wrote=False)
        return [entry for entry in ours if not entry.answer.done()]  # the delivery was not broken off meanwhile


class JobLedger:
    """See `delivery.transport.Ledger`."""

    def __init__(self, ledger: AttemptLedger, claim: Claim) -> None:
        self._ledger = ledger
        self._claim = claim
        self.sent: set[int] = set()  # numbers of recipients whose copy may be out

    async def sending(self, recipient_numbers: Sequence[int], remote: str = "") -> bool:
        """See there."""
        wrote = await self._ledger.write(self._claim, self._ledger.sendings(self._claim, recipient_numbers, remote))
        if wrote:
            self.sent.update(recipient_numbers)
        return wrote


class _Entry:
    """What one delivery waits for."""

    __slots__ = ("answer", "claim", "sendings")

    def __init__(self, claim: Claim, sendings: list[Sending]) -> None:
        self.claim = claim
        self.sendings = sendings
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def tell(self, *, wrote: bool) -> None:
        if not self.answer.done():  # the delivery may have been broken off
            self.answer.set_result(wrote)
