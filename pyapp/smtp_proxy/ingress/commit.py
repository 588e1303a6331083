"""Group commit: what came while the last transaction ran is the next one.

Nobody waits for a batch to fill. An idle system commits a message the moment it is complete; a busy one commits
whatever has gathered meanwhile, and so gets wider by itself. One commit at a time is what costs least per message; a
second one begins when the first is slow, so that one stuck transaction does not hold up everybody, and at once when
the first is wide and a tenant comes that has nothing in it (docs/decisions/0019-fair-share.md).

250 is spoken after the commit and never before; whatever goes wrong in between, the client hears 451.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING, Any

from smtp_proxy.core import BODY, DEFERRED, ID, LANE, OVER_RATE, QUEUED, TENANT_ID
from smtp_proxy.errors import StoreError, StoreUnavailable
from smtp_proxy.model.lane import Lane
from smtp_proxy.telemetry.metrics import (
    ACCEPTED_BYTES,
    COMMIT_BATCH,
    COMMIT_SECONDS,
    ENVELOPES_ACCEPTED,
    ENVELOPES_DEFERRED,
    SUBMITTED_AGAIN,
)
from smtp_proxy.tenants.limits import Rulings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Mapping, Sequence

    from smtp_proxy.core import EnvelopeRow
    from smtp_proxy.ingress.announce import Announcer
    from smtp_proxy.ingress.once import Once
    from smtp_proxy.ingress.ports import Envelopes, EnvelopeSource, Judge, MailStore
    from smtp_proxy.ingress.pressure import StoreWatch
    from smtp_proxy.model.limits import Placement
    from smtp_proxy.model.submission import SubmissionKey

log = logging.getLogger(__name__)

# Ten times what a commit takes on a good day: a younger one is worth waiting for.
# docs/decisions/0013-one-commit-at-a-time.md
_OVERLAP_SECONDS = 0.02
# A commit of fewer messages is over before another one would be.
_WIDE_MESSAGES = 16


class Turns:
    """Who takes the next batch, and when: not while another commit is young, since what waits gathers meanwhile.

    But whoever comes as the first of its tenant does not wait for a wide batch of others. And while tenants with little
    mail are about, those with much have the committing time up to `busy_share` only: the rest of it, and of what the
    machine has, is left to the others.
    """

    def __init__(
        self,
        overlap_seconds: float = _OVERLAP_SECONDS,
        wide_messages: int = _WIDE_MESSAGES,
        *,
        busy_share: float = 1.0,
    ) -> None:
        self._overlap_seconds = overlap_seconds
        self._wide_messages = wide_messages
        self._rest_per_second = (1 - busy_share) / busy_share
        self._door = asyncio.Lock()  # one stands at the source; the others behind it
        self._under_way = 0
        self._youngest = 0.0  # when the last commit began, by the loop's clock
        self._wide: set[int] = set()  # those under way that whoever comes as the first need not wait for
        self._busy: dict[int, float] = {}  # when those under way began that are beside quiet tenants
        self._rest_until = -math.inf
        self._ended: asyncio.Future[None] | None = None

    async def take(self, source: EnvelopeSource) -> Envelopes:
        """Wait for a turn and for a batch. Each one taken needs a `done`."""
        async with self._door:
            batch = await self._newcomers_until_one_may_begin(source)
            if batch is None:
                batch = await source.next_batch()
                if len(batch) >= self._wide_messages:
                    self._wide.add(id(batch))
            self._under_way += 1
            self._youngest = asyncio.get_running_loop().time()
            if batch.beside_quiet:
                self._busy[id(batch)] = self._youngest
            return batch

    def done(self, batch: Envelopes) -> None:
        """A commit ended, well or not."""
        self._under_way -= 1
        self._wide.discard(id(batch))
        began = self._busy.pop(id(batch), None)
        if began is not None:
            now = asyncio.get_running_loop().time()
            rest = (now - began) * self._rest_per_second
            # A commit that takes long does not wait for the processor but for the disk, which no rest makes faster.
            self._rest_until = max(self._rest_until, now + min(rest, self._overlap_seconds))
        self._wake()

    async def _newcomers_until_one_may_begin(self, source: EnvelopeSource) -> Envelopes | None:
        loop = asyncio.get_running_loop()
        while (left := self._seconds_left(loop.time())) > 0:
            # By hand what asyncio.wait would do for five times as much: this runs once for every batch.
            self._ended = loop.create_future()
            timer = loop.call_later(left, self._wake)
            newcomers = source.newcomers() if self._wide or loop.time() < self._rest_until else None
            if newcomers is not None:
                newcomers.add_done_callback(self._wake)
            try:
                await self._ended
            finally:
                timer.cancel()
                if newcomers is not None and not newcomers.done():
                    newcomers.cancel()
            if newcomers is not None and newcomers.done() and not newcomers.cancelled():
                batch: Envelopes = newcomers.result()
                return batch
        return None

    def _seconds_left(self, now: float) -> float:
        overlap = self._youngest + self._overlap_seconds - now if self._under_way else 0.0
        return max(overlap, self._rest_until - now)

    def _wake(self, _newcomers: asyncio.Future[Any] | None = None) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


class Committer:
    """Takes batches, stores them, answers them. Several may run at once; each does one batch at a time."""

    def __init__(
        self,
        source: EnvelopeSource,
        store: MailStore,
        announcer: Announcer,
        store_watch: StoreWatch,
        *,
        sweep_after_seconds: float,
        turns: Turns | None = None,
        limits: Judge | None = None,
        once: Once | None = None,
    ) -> None:
        self._once = once
        self._source = source
        self._store = store
        self._announcer = announcer
        self._watch = store_watch
        self._sweep_after_seconds = sweep_after_seconds
        self._turns = turns or Turns()  # shared by all committers of a service
        self._limits = limits

    async def run(self) -> None:
        """Commit batch after batch; for ever."""
        while True:
            batch = await self._turns.take(self._source)
            try:
                await self.commit(batch)
            finally:
                self._turns.done(batch)
                batch.defer()  # Whatever has no answer by now.
            del batch  # Its rows need not live until the next one comes.

    async def commit(self, batch: Envelopes) -> None:
        """Store a batch and answer it."""
        ids = batch.ids()
        if self._watch.is_down:
            batch.defer()
            ENVELOPES_DEFERRED.inc(len(ids))
            return
        began = time.perf_counter()
        if self._limits is not None and self._limits.concerns(batch.tenants()):
            await self._commit_ruled(batch, self._limits)
        else:
            await self._commit_unruled(batch, ids)
        COMMIT_SECONDS.observe(time.perf_counter() - began)
        COMMIT_BATCH.observe(len(ids))

    async def _commit_unruled(self, batch: Envelopes, ids: list[bytes]) -> None:
        """What leaves as soon as it can; of tenants whose submission is idempotent by a way of its own."""
        once = self._once
        if once is None or not once.concerns(batch.tenants()):
            await self._commit_whole(batch, ids)
            return
        apart = batch.split([row[ID] for row in batch.outlines() if once.concerns((row[TENANT_ID],))])
        try:
            if rest := batch.ids():
                await self._commit_whole(batch, rest)
            await self._commit_rows(apart, {})
        finally:
            apart.defer()  # What has no answer by now.

    async def _commit_whole(self, batch: Envelopes, ids: list[bytes]) -> None:
        """The usual way: as the core encodes it, without a look at the single messages."""
        bulk = batch.bulk_ids()
        storing = self._store.accept_encoded(batch.encode, len(ids), sweep_after_seconds=self._sweep_after_seconds)
        outcome = await self._outcome_of(storing)
        if outcome is True:
            batch.commit()
            self._accepted(ids, bulk, batch.size_bytes)
        elif outcome is False:
            batch.defer()
            ENVELOPES_DEFERRED.inc(len(ids))
        else:
            rows = batch.envelopes()
            self._answer(batch, rows, await self._store_halves(rows, outcome))

    async def _commit_ruled(self, batch: Envelopes, limits: Judge) -> None:
        """As its tenants' limits say. What they let through goes the usual way; only the others are looked at."""
        rulings = await self._judged(batch, limits)
        refused = batch.split(list(rulings.refused))
        placed = batch.split(list(rulings.placements))
        try:
            refused.answer([OVER_RATE] * len(refused))
            if ids := batch.ids():
                await self._commit_unruled(batch, ids)
            if len(placed):
                await self._commit_rows(placed, rulings.placements)
        finally:
            placed.defer()  # What has no answer by now.

    async def _commit_rows(self, batch: Envelopes, placements: Mapping[bytes, Placement]) -> None:
        """Store what the core does not write down: what is held or put off, and what may have been submitted before."""
        tenants = batch.tenants()
        rows = batch.envelopes()
        if self._once is None or not self._once.concerns(tenants):
            self._answer(batch, rows, await self._store_rows(rows, placements), placements)
            return
        keys = {row[ID]: key for row in rows if (key := self._once.key(row)) is not None}
        named = await self._store_once(rows, keys, placements)
        batch.rename([named.get(row[ID], row[ID]) for row in rows])
        answers = [QUEUED if row[ID] in named else DEFERRED for row in rows]
        known = {row[ID] for row in rows if named.get(row[ID], row[ID]) != row[ID]}
        SUBMITTED_AGAIN.inc(len(known))
        self._answer(batch, rows, answers, placements, known)

    async def _store_once(
        self,
        rows: list[EnvelopeRow],
        keys: Mapping[bytes, SubmissionKey],
        placements: Mapping[bytes, Placement],
    ) -> dict[bytes, bytes]:
        """Under which id each of them is committed; those that are not are left out."""
        named: dict[bytes, bytes] = {}

        async def store() -> None:
            after = self._sweep_after_seconds
            named.update(await self._store.accept_once(rows, keys, sweep_after_seconds=after, placements=placements))

        outcome = await self._outcome_of(store())
        if isinstance(outcome, StoreError) and len(rows) > 1:  # one must not take the others with it
            middle = len(rows) // 2
            for half in (rows[:middle], rows[middle:]):
                named.update(await self._store_once(half, keys, placements))
        elif isinstance(outcome, StoreError):
            log.error("a message can not be stored: %s", outcome, extra=_named(rows[0]))
        return named

    async def _judged(self, batch: Envelopes, limits: Judge) -> Rulings:
        """What the limits say; where they fail, mail is taken as if there were none."""
        try:
            return await limits.judge(batch.outlines()) or Rulings()
        except Exception:
            log.exception("limits failed in an unforeseen way", extra={"action": "limits_failed"})
            return Rulings()

    def _answer(
        self,
        batch: Envelopes,
        rows: list[EnvelopeRow],
        answers: Sequence[int],
        placements: Mapping[bytes, Placement] | None = None,
        known: Collection[bytes] = (),
    ) -> None:
        """`known`: those that were stored before, under another id."""
        batch.answer(answers)
        ENVELOPES_DEFERRED.inc(sum(answer == DEFERRED for answer in answers))
        stored = zip(rows, answers, strict=True)
        accepted = [row for row, answer in stored if answer == QUEUED and row[ID] not in known]
        if accepted:
            ready = [row for row in accepted if row[ID] not in (placements or {})]
            bulk = [row[ID] for row in ready if row[LANE] == Lane.BULK]
            size_bytes = sum(len(row[BODY]) for row in accepted)
            self._accepted([row[ID] for row in ready], bulk, size_bytes, len(accepted) - len(ready))

    def _accepted(self, ready: list[bytes], bulk: Collection[bytes], size_bytes: int, placed: int = 0) -> None:
        """`bulk`: those of `ready` that are. `placed`: how many more are stored, for later than now."""
        self._watch.succeeded()
        ENVELOPES_ACCEPTED.inc(len(ready) + placed)
        ACCEPTED_BYTES.inc(size_bytes)
        if bulk:
            bulk = frozenset(bulk)
            self._announcer.announce([i for i in ready if i in bulk], Lane.BULK)
            ready = [i for i in ready if i not in bulk]
        if ready:
            self._announcer.announce(ready)

    async def _store_halves(
        self, rows: list[EnvelopeRow], refusal: StoreError, placements: Mapping[bytes, Placement] | None = None
    ) -> list[bool]:
        """Which of them are committed now, having been refused together: one must not take the others with it."""
        if len(rows) == 1:
            log.error("a message can not be stored: %s", refusal, extra=_named(rows[0]))
            return [False]
        middle = len(rows) // 2
        return [
            *await self._store_rows(rows[:middle], placements),
            *await self._store_rows(rows[middle:], placements),
        ]

    async def _store_rows(
        self, rows: list[EnvelopeRow], placements: Mapping[bytes, Placement] | None = None
    ) -> list[bool]:
        storing = self._store.accept(rows, sweep_after_seconds=self._sweep_after_seconds, placements=placements)
        outcome = await self._outcome_of(storing)
        if isinstance(outcome, bool):
            return [outcome] * len(rows)
        return await self._store_halves(rows, outcome, placements)

    async def _outcome_of(self, storing: Awaitable[None]) -> bool | StoreError:
        """True: committed. False: not, and the next may fare better. An error: Postgres refuses what is in there."""
        try:
            await storing
        except StoreUnavailable as error:
            self._watch.failed(error)
            return False
        except StoreError as error:
            return error
        except Exception:
            log.exception("storing failed in an unforeseen way", extra={"action": "commit_failed"})
            return False
        return True


class Discarder:
    """For benchmarks: says 250 and keeps nothing. The greeting says so."""

    def __init__(self, source: EnvelopeSource) -> None:
        self._source = source

    async def run(self) -> None:
        """Answer batch after batch; for ever."""
        while True:
            batch = await self._source.next_batch()
            for _ in batch.encode(0):
                pass  # The border is part of what is measured.
            batch.commit()
            del batch
            await asyncio.sleep(0)  # Under full load the next batch is there at once; others want the loop too.


def _named(row: EnvelopeRow) -> dict[str, object]:
    return {"action": "envelope_refused_by_store", "envelope_id": row[ID].hex()}
