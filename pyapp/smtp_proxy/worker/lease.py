"""What this worker holds in Postgres, and for how long it may believe so.

The store knows a worker by an id, and releases *everything* under that id. What is in hand is renewed by name, every
third of the lease, and each claim is believed in for as long as it was renewed itself: of what others hold just then
(its outcome is being recorded, an operator changes it) the store says that it was left alone, and it is tried again
within a second.

A claim whose answer was lost, or a job dropped unrecorded, leaves rows under an id that nobody works on. Such an id is
*retired*: new claims go under a fresh one, and once no job of it is under way the old one is released whole, which
gives the strays back. Where that takes longer than a lease, theirs has run out.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from smtp_proxy.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from smtp_proxy.clock import Clock
    from smtp_proxy.model.envelope import Job
    from smtp_proxy.model.lane import Lane
    from smtp_proxy.worker.ports import MailStore

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Lease:
    """One id under which mail is claimed."""

    worker_id: UUID = field(default_factory=uuid4)
    in_hand: set[Claim] = field(default_factory=set)  # not settled
    retired: bool = False
    doubtful: bool = False  # a claim under it got no answer, and nothing else was in hand: release before the next


class Calm:
    """Whether Postgres has been there long enough for every worker to have renewed its leases.

    After an outage that was longer than a lease, all leases look as if their workers were dead. They are not; they
    need a moment to say so, and whoever sweeps before that has mail delivered twice.
    """

    def __init__(self, lease_seconds: float, clock: Clock) -> None:
        self._clock = clock
        self._needed_seconds = lease_seconds / 2  # leases are renewed every third
        self._until = 0.0

    def trouble(self) -> None:
        """Postgres could not be asked just now."""
        self._until = self._clock.monotonic() + self._needed_seconds

    def __bool__(self) -> bool:
        return self._clock.monotonic() >= self._until


@dataclass(eq=False, slots=True)
class Claim:
    """A claimed job."""

    job: Job
    lease: Lease
    sure_since: float  # monotonic seconds: when the claim, or its last renewal, was asked for


class Leases:
    """All ids of this worker. `give_back` publishes envelopes that were released."""

    def __init__(
        self,
        store: MailStore,
        lease_seconds: float,
        clock: Clock,
        give_back: Callable[[dict[UUID, Lane]], Awaitable[None]],
    ) -> None:
        self._store = store
        self._seconds = lease_seconds
        self._clock = clock
        self._give_back = give_back
        self.calm = Calm(lease_seconds, clock)
        self._current = Lease()
        self._retired: list[Lease] = []
        self._round_at = clock.monotonic()  # what is older has yet to be renewed
        self._hurry = asyncio.Event()

    async def claim(self, envelope_ids: Sequence[UUID]) -> list[Claim]:
        """Claim in the store. Raises StoreUnavailable; whatever that claim did is then given back in time."""
        lease = self._current
        if lease.doubtful:
            await self._release(lease)
            lease.doubtful = False
        asked_at = self._clock.monotonic()
        try:
            jobs = await self._store.claim(envelope_ids, lease.worker_id, self._seconds)
        except BaseException:
            self._doubt(lease)
            raise
        claims = [Claim(job, lease, asked_at) for job in jobs]
        lease.in_hand.update(claims)
        if asked_at < self._round_at:
            self._hurry.set()  # A round has gone by without these.
        return claims

    def holds(self, claim: Claim) -> bool:
        """Whether the claim is surely still ours: nobody else can have been given it yet."""
        return self._clock.monotonic() < claim.sure_since + self._seconds

    def settle(self, claim: Claim) -> None:
        """The job is recorded: it is no longer in hand."""
        claim.lease.in_hand.discard(claim)
        if claim.lease.retired and not claim.lease.in_hand:
            self._hurry.set()

    def drop(self, claim: Claim) -> None:
        """The job is let go unrecorded; its rows go back to the queue."""
        self.retire(claim.lease)
        self.settle(claim)

    def retire(self, lease: Lease) -> None:
        """Claim nothing more under this id."""
        if not lease.retired:
            lease.retired = True
            self._retired.append(lease)
            self._hurry.set()
        if lease is self._current:
            self._current = Lease()

    def _doubt(self, lease: Lease) -> None:
        self.calm.trouble()
        if lease.in_hand:
            self.retire(lease)
        else:
            lease.doubtful = True

    async def run(self) -> None:
        """Renew every third of the lease; release what was retired. Until cancelled."""
        soon = math.inf
        while True:
            next_round = self._round_at + self._seconds / 3 - self._clock.monotonic()
            try:
                async with asyncio.timeout(min(soon, next_round)):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()
            soon = math.inf if await self.tend() else min(1.0, self._seconds / 10)

    async def tend(self) -> bool:
        """Renew what this round has not, and release once. False: something is left, try again soon."""
        now = self._clock.monotonic()
        if now >= self._round_at + self._seconds / 3:
            self._round_at = now
        try:
            # Each is asked about, whatever the one before has left.
            whole = all([await self._renew(lease) for lease in [self._current, *self._retired]])
            for lease in [lease for lease in self._retired if not lease.in_hand]:
                await self._release(lease)
        except StoreUnavailable as error:
            self.calm.trouble()
            log.warning("leases are not renewed: %s", error, extra={"action": "renew_failed"})
            return False
        return whole

    async def release_all(self) -> None:
        """At shutdown, when nothing is under way any more. Raises StoreUnavailable."""
        self.retire(self._current)
        for lease in list(self._retired):
            await self._release(lease)

    async def _renew(self, lease: Lease) -> bool:
        """Whether nothing of this lease is left to be renewed in this round."""
        due = [claim for claim in lease.in_hand if claim.sure_since < self._round_at]
        if not due:
            return True
        asked_at = self._clock.monotonic()
        envelope_ids = list({claim.job.envelope.id for claim in due})
        renewed = await self._store.renew(envelope_ids, lease.worker_id, self._seconds)
        for claim in due:
            if renewed.get(claim.job.envelope.id):
                claim.sure_since = asked_at
        # What has been recorded in the meantime needs no lease; what the store does not know as ours has none.
        left = [claim for claim in due if claim in lease.in_hand and renewed.get(claim.job.envelope.id) is False]
        late = sum(asked_at - claim.sure_since > self._seconds / 2 for claim in left)
        if late:
            log.warning("leases of %d messages are not renewed: others hold them", late, extra={"action": "renew_late"})
        return not left

    async def _release(self, lease: Lease) -> None:
        released = await self._store.release(lease.worker_id)
        if lease.retired:
            self._retired.remove(lease)
        if released:
            log.info("%d messages given back", len(released), extra={"action": "released", "messages": len(released)})
            await self._give_back(released)
