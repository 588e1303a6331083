"""Group commit: what came while the last transaction ran is the next one.

Nobody waits for a batch to fill. An idle system commits a message the moment it is complete; a busy one commits
whatever has gathered meanwhile, and so gets wider by itself. One commit at a time is what costs least per message; a
second one begins when the first is slow, so that one stuck transaction does not hold up everybody, and at once when
the first is wide and a tenant comes that has nothing in it (docs/decisions/0019-fair-share.md).

250 is spoken after the commit and never before; whatever goes wrong in between, the client hears 451.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from typing import TYPE_CHECKING

from smtp_proxy.core import BODY, DEFERRED, ID, OVER_RATE, QUEUED
from smtp_proxy.errors import StoreError, StoreUnavailable
from smtp_proxy.telemetry.metrics import (
    ACCEPTED_BYTES,
    COMMIT_BATCH,
    COMMIT_SECONDS,
    ENVELOPES_ACCEPTED,
    ENVELOPES_DEFERRED,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smtp_proxy.core import EnvelopeRow
    from smtp_proxy.ingress.announce import Announcer
    from smtp_proxy.ingress.ports import Envelopes, EnvelopeSource, Judge, MailStore
    from smtp_proxy.ingress.pressure import StoreWatch
    from smtp_proxy.model.limits import Placement
    from smtp_proxy.tenants.limits import Rulings

log = logging.getLogger(__name__)

# Ten times what a commit takes on a good day: a younger one is worth waiting for.
# docs/decisions/0013-one-commit-at-a-time.md
_OVERLAP_SECONDS = 0.02
# A commit of fewer messages is over before another one would be.
_WIDE_MESSAGES = 16


class Turns:
    """Who takes the next batch, and when: not while another commit is young, since what waits gathers meanwhile.

    But whoever comes as the first of its tenant does not wait for a wide batch of others.
    """

    def __init__(self, overlap_seconds: float = _OVERLAP_SECONDS, wide_messages: int = _WIDE_MESSAGES) -> None:
        self._overlap_seconds = overlap_seconds
        self._wide_messages = wide_messages
        self._door = asyncio.Lock()  # one stands at the source; the others behind it
        self._under_way = 0
        self._youngest = 0.0  # when the last commit began, by the loop's clock
        self._is_wide = False  # the last one
        self._ended: asyncio.Future[None] | None = None

    async def take(self, source: EnvelopeSource) -> Envelopes:
        """Wait for a turn and for a batch. Each one taken needs a `done`."""
        async with self._door:
            batch = await self._newcomers_until_one_may_begin(source) or await source.next_batch()
            self._under_way += 1
            self._youngest = asyncio.get_running_loop().time()
            self._is_wide = len(batch) >= self._wide_messages
            return batch

    def done(self) -> None:
        """A commit ended, well or not."""
        self._under_way -= 1
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    async def _newcomers_until_one_may_begin(self, source: EnvelopeSource) -> Envelopes | None:
        loop = asyncio.get_running_loop()
        while self._under_way:
            left = self._youngest + self._overlap_seconds - loop.time()
            if left <= 0:
                break
            self._ended = loop.create_future()
            newcomers = source.newcomers() if self._is_wide else None
            waited = {self._ended} if newcomers is None else {self._ended, newcomers}
            try:
                await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if newcomers is not None and not newcomers.done():
                    newcomers.cancel()
            if newcomers is not None and newcomers.done() and not newcomers.cancelled():
                batch: Envelopes = newcomers.result()
                return batch
        return None


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
    ) -> None:
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
                self._turns.done()
                batch.defer()  # Whatever has no answer by now.
            del batch  # Its rows need not live until the next one comes.

    async def commit(self, batch: Envelopes) -> None:
        """Store a batch and answer it."""
        rows = batch.envelopes()
        if self._watch.is_down:
            batch.defer()
            ENVELOPES_DEFERRED.inc(len(rows))
            return
        began = time.perf_counter()
        rulings = None if self._limits is None else await self._limits.judge(rows)
        if rulings is None:
            stored = await self._store_rows(rows)
            answers: list[int] = list(stored)
        else:
            answers = await self._store_ruled(rows, rulings)
            stored = [answer == QUEUED for answer in answers]
        if all(stored):
            batch.commit()
        else:
            batch.answer(answers)
            ENVELOPES_DEFERRED.inc(answers.count(DEFERRED))
        COMMIT_SECONDS.observe(time.perf_counter() - began)
        COMMIT_BATCH.observe(len(rows))
        accepted = list(itertools.compress(rows, stored))
        if accepted:
            self._watch.succeeded()
            ENVELOPES_ACCEPTED.inc(len(accepted))
            ACCEPTED_BYTES.inc(sum(len(row[BODY]) for row in accepted))
            placed = {} if rulings is None else rulings.placements
            self._announcer.announce([row[ID] for row in accepted if row[ID] not in placed])

    async def _store_ruled(self, rows: list[EnvelopeRow], rulings: Rulings) -> list[int]:
        """Store what its tenant may send, where it is to be; the answer to each."""
        wanted = [row for row in rows if row[ID] not in rulings.refused]
        stored = iter(await self._store_rows(wanted, rulings.placements) if wanted else [])
        return [OVER_RATE if row[ID] in rulings.refused else int(next(stored)) for row in rows]

    async def _store_rows(
        self, rows: list[EnvelopeRow], placements: Mapping[bytes, Placement] | None = None
    ) -> list[bool]:
        """Which of them are committed now. One that Postgres refuses must not take the others with it."""
        try:
            await self._store.accept(rows, sweep_after_seconds=self._sweep_after_seconds, placements=placements)
        except StoreUnavailable as error:
            self._watch.failed(error)
            return [False] * len(rows)
        except StoreError as error:
            if len(rows) == 1:
                log.error("a message can not be stored: %s", error, extra=_named(rows[0]))  # noqa: TRY400
                return [False]
        except Exception:
            log.exception("storing failed in an unforeseen way", extra={"action": "commit_failed"})
            return [False] * len(rows)
        else:
            return [True] * len(rows)
        half = len(rows) // 2
        return [
            *await self._store_rows(rows[:half], placements),
            *await self._store_rows(rows[half:], placements),
        ]


class Discarder:
    """For benchmarks: says 250 and keeps nothing. The greeting says so."""

    def __init__(self, source: EnvelopeSource) -> None:
        self._source = source

    async def run(self) -> None:
        """Answer batch after batch; for ever."""
        while True:
            batch = await self._source.next_batch()
            batch.envelopes()  # The border is part of what is measured.
            batch.commit()
            del batch
            await asyncio.sleep(0)  # Under full load the next batch is there at once; others want the loop too.


def _named(row: EnvelopeRow) -> dict[str, object]:
    return {"action": "envelope_refused_by_store", "envelope_id": row[ID].hex()}
