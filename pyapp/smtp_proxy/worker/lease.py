"""What this worker holds in Postgres, and for how long it may believe so.

The store knows a worker by an id and renews or releases *everything* under that id. So an id is only good while we know
all that lies under it. A claim whose answer was lost, or a job dropped unrecorded, leaves rows there that nobody works
on; renewing them would keep them from everybody for good. Such an id is *retired*: new claims go under a fresh one, the
old one is renewed only while jobs of it are under way, and then released whole, which gives the strays back.
"""

from __future__ import annotations

import asyncio
import logging
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
    """One id under which mail is claimed. Times are monotonic seconds."""

    worker_id: UUID = field(default_factory=uuid4)
    in_hand: int = 0  # jobs claimed and not settled
    renewed_at: float = 0.0
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
    claimed_at: float


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
        lease.in_hand += len(jobs)
        return [Claim(job, lease, asked_at) for job in jobs]

    def holds(self, claim: Claim) -> bool:
        """Whether the claim is surely still ours: nobody else can have been given it yet."""
        return self._clock.monotonic() < max(claim.claimed_at, claim.lease.renewed_at) + self._seconds

    def settle(self, claim: Claim) -> None:
        """The job is recorded: it is no longer in hand."""
        claim.lease.in_hand -= 1
        if claim.lease.retired and claim.lease.in_hand <= 0:
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
        pause = self._seconds / 3
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()
            pause = self._seconds / 3 if await self.tend() else min(1.0, self._seconds / 10)

    async def tend(self) -> bool:
        """Renew and release once. False: the store could not be asked, try again soon."""
        try:
            for lease in [self._current, *self._retired]:
                if lease.in_hand > 0:
                    await self._renew(lease)
            for lease in [lease for lease in self._retired if lease.in_hand <= 0]:
                await self._release(lease)
        except StoreUnavailable as error:
            self.calm.trouble()
            log.warning("leases are not renewed: %s", error, extra={"action": "renew_failed"})
            return False
        return True

    async def release_all(self) -> None:
        """At shutdown, when nothing is under way any more. Raises StoreUnavailable."""
        self.retire(self._current)
        for lease in list(self._retired):
            await self._release(lease)

    async def _renew(self, lease: Lease) -> None:
        now = self._clock.monotonic()
        await self._store.renew(lease.worker_id, self._seconds)
        lease.renewed_at = now

    async def _release(self, lease: Lease) -> None:
        released = await self._store.release(lease.worker_id)
        if lease.retired:
            self._retired.remove(lease)
        if released:
            log.info("%d messages given back", len(released), extra={"action": "released", "messages": len(released)})
            await self._give_back(released)
