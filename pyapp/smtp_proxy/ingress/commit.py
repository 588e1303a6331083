"""Group commit: what came while the last transaction ran is the next one.

Nobody waits for a batch to fill. An idle system commits a message the moment it is complete; a busy one commits
whatever has gathered meanwhile, and so gets wider by itself. One commit at a time is what costs least per message; a
second one begins when the first is slow, so that one stuck transaction does not hold up everybody.

250 is spoken after the commit and never before; whatever goes wrong in between, the client hears 451.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from typing import TYPE_CHECKING

from smtp_proxy.core import BODY, ID
from smtp_proxy.errors import StoreError, StoreUnavailable
from smtp_proxy.telemetry.metrics import (
    ACCEPTED_BYTES,
    COMMIT_BATCH,
    COMMIT_SECONDS,
    ENVELOPES_ACCEPTED,
    ENVELOPES_DEFERRED,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from smtp_proxy.core import EnvelopeRow
    from smtp_proxy.ingress.announce import Announcer
    from smtp_proxy.ingress.ports import Envelopes, EnvelopeSource, MailStore
    from smtp_proxy.ingress.pressure import StoreWatch

log = logging.getLogger(__name__)

# Ten times what a commit takes on a good day: a younger one is worth waiting for.
# docs/decisions/0013-one-commit-at-a-time.md
_OVERLAP_SECONDS = 0.02


class Turns:
    """Who takes the next batch, and when: not while another commit is young, since what waits gathers meanwhile."""

    def __init__(self, overlap_seconds: float = _OVERLAP_SECONDS) -> None:
        self._overlap_seconds = overlap_seconds
        self._door = asyncio.Lock()  # one stands at the source; the others behind it
        self._under_way = 0
        self._youngest = 0.0  # when the last commit began, by the loop's clock
        self._ended = asyncio.Event()

    async def take(self, source: EnvelopeSource) -> Envelopes:
        """Wait for a turn and for a batch. Each one taken needs a `done`."""
        async with self._door:
            await self._until_one_may_begin()
            batch = await source.next_batch()
            self._under_way += 1
            self._youngest = asyncio.get_running_loop().time()
            return batch

    def done(self) -> None:
        """A commit ended, well or not."""
        self._under_way -= 1
        self._ended.set()

    async def _until_one_may_begin(self) -> None:
        while self._under_way:
            left = self._youngest + self._overlap_seconds - asyncio.get_running_loop().time()
            if left <= 0:
                return
            self._ended.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._ended.wait()


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
    ) -> None:
        self._source = source
        self._store = store
        self._announcer = announcer
        self._watch = store_watch
        self._sweep_after_seconds = sweep_after_seconds
        self._turns = turns or Turns()  # shared by all committers of a service

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
        ids, size_bytes = batch.ids(), batch.size_bytes
        messages = len(ids)
        if self._watch.is_down:
            batch.defer()
            ENVELOPES_DEFERRED.inc(messages)
            return
        began = time.perf_counter()
        outcome = await self._outcome_of(
            self._store.accept_encoded(batch.encode, messages, sweep_after_seconds=self._sweep_after_seconds)
        )
        if outcome is True:
            batch.commit()
        elif outcome is False:
            batch.defer()
            ENVELOPES_DEFERRED.inc(messages)
            ids = []
        else:
            ids, size_bytes = await self._commit_parts(batch, outcome)
        COMMIT_SECONDS.observe(time.perf_counter() - began)
        COMMIT_BATCH.observe(messages)
        if ids:
            self._accepted(ids, size_bytes)

    def _accepted(self, ids: list[bytes], size_bytes: int) -> None:
        self._watch.succeeded()
        ENVELOPES_ACCEPTED.inc(len(ids))
        ACCEPTED_BYTES.inc(size_bytes)
        self._announcer.announce(ids)

    async def _commit_parts(self, batch: Envelopes, refusal: StoreError) -> tuple[list[bytes], int]:
        """One that Postgres refuses must not take the others with it. Returns what is stored: ids, bytes of bodies."""
        rows = batch.envelopes()
        stored = await self._store_halves(rows, refusal)
        batch.answer(stored)
        ENVELOPES_DEFERRED.inc(stored.count(False))
        accepted = list(itertools.compress(rows, stored))
        return [row[ID] for row in accepted], sum(len(row[BODY]) for row in accepted)

    async def _store_halves(self, rows: list[EnvelopeRow], refusal: StoreError) -> list[bool]:
        """Which of them are committed now, having been refused together."""
        if len(rows) == 1:
            log.error("a message can not be stored: %s", refusal, extra=_named(rows[0]))
            return [False]
        middle = len(rows) // 2
        return [*await self._store_rows(rows[:middle]), *await self._store_rows(rows[middle:])]

    async def _store_rows(self, rows: list[EnvelopeRow]) -> list[bool]:
        outcome = await self._outcome_of(self._store.accept(rows, sweep_after_seconds=self._sweep_after_seconds))
        return [outcome] * len(rows) if isinstance(outcome, bool) else await self._store_halves(rows, outcome)

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
            batch.encode(0)  # The border is part of what is measured.
            batch.commit()
            del batch
            await asyncio.sleep(0)  # Under full load the next batch is there at once; others want the loop too.


def _named(row: EnvelopeRow) -> dict[str, object]:
    return {"action": "envelope_refused_by_store", "envelope_id": row[ID].hex()}
