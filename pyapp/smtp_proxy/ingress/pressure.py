"""Backpressure: who may come in at all.

Several know a reason to keep mail out; the gravest of those that hold is what the core is told. `StoreWatch` knows
whether Postgres can commit, `DepthWatch` whether too much is ready and not delivered.

Not here: the budget of memory (the core's own) and the limits of a tenant (`limits.py`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from smtp_proxy.clock import Clock, SystemClock
from smtp_proxy.errors import StoreError, StoreUnavailable, StreamUnavailable
from smtp_proxy.telemetry.metrics import GATE_CLOSED, QUEUE_DEPTH

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from smtp_proxy.core import Gate
    from smtp_proxy.ingress.ports import Depth, GateSetter, MailStore

log = logging.getLogger(__name__)

# Gravest first.
_REASONS: Final[tuple[Gate, ...]] = ("draining", "store_down", "busy")
_DEPTH_SECONDS: Final = 1.0
# The count in Postgres is dear while much waits, and is only asked while Redis is away.
_STORE_DEPTH_SECONDS: Final = 5.0
_PROBE_SECONDS: Final = (0.1, 1.0)  # before the first and, at most, between two
# A store that passes its probe and then fails at mail all the same is left alone twice as long each time, up to this.
_SHUT_MAX_SECONDS: Final = 30.0
# So long after the gate was opened a failure counts as a new trouble, even if no mail came in between.
_DOUBT_SECONDS: Final = 60.0
_PROBE_PATIENCE_SECONDS: Final = 5.0
# Twice within the two minutes of the alarm store-down, and cheap: one question on a connection that is there.
_QUIET_SECONDS: Final = 30.0


class Gatekeeper:
    """Combines reasons, and tells the core the gravest of them."""

    def __init__(self, core: GateSetter) -> None:
        self._core = core
        self._reasons: set[Gate] = set()
        self.gate: Gate = "open"

    def close(self, reason: Gate) -> None:
        """Keep mail out for this reason, until `lift`."""
        self._reasons.add(reason)
        self._tell(reason, closed=True)

    def lift(self, reason: Gate) -> None:
        """Say that the reason holds no longer; others may."""
        self._reasons.discard(reason)
        self._tell(reason, closed=False)

    def _tell(self, reason: Gate, *, closed: bool) -> None:
        GATE_CLOSED.labels(reason).set(closed)
        gate: Gate = next((grave for grave in _REASONS if grave in self._reasons), "open")
        if gate != self.gate:
            log.log(
                logging.INFO if gate in ("open", "draining") else logging.WARNING,
                "the gate is %s", gate, extra={"action": "gate", "before": self.gate},
            )  # fmt: skip
            self.gate = gate
            self._core.set_gate(gate)


class StoreWatch:
    """Knows whether the store can commit: told so by who tries, and by trying itself until it can again.

    While nobody tells it anything it asks for a sign of life: StoreDown says that Postgres is away without mail too.

    What it tries is a commit of its own, since a full disk or a read-only server answers questions well enough. Even
    so, mail may fail where the trial did not; each such relapse keeps the gate shut for longer.
    """

    def __init__(
        self,
        store: MailStore,
        gatekeeper: Gatekeeper,
        *,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._gatekeeper = gatekeeper
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._down = asyncio.Event()
        self._shut_seconds = 0.0  # how long the gate stays shut before the first probe
        self._doubted_until = 0.0  # monotonic; a failure before then is a relapse

    @property
    def is_down(self) -> bool:
        """Trying to commit is known to be in vain."""
        return self._down.is_set()

    def failed(self, error: Exception) -> None:
        """Somebody could not commit."""
        if self._down.is_set():
            return
        relapse = self._clock.monotonic() < self._doubted_until
        self._shut_seconds = min(self._shut_seconds * 2, _SHUT_MAX_SECONDS) if relapse else _PROBE_SECONDS[0]
        log.warning(
            "mail can not be stored: %s", error, extra={"action": "store_down", "shut_seconds": self._shut_seconds}
        )
        self._down.set()
        self._gatekeeper.close("store_down")

    def succeeded(self) -> None:
        """Somebody could commit: the next failure is a new trouble."""
        self._doubted_until = 0.0

    async def run(self) -> None:
        """Try a failed store until it commits; for ever."""
        while True:
            await self._trouble()
            await self._probe()
            log.info("mail can be stored again", extra={"action": "store_up"})
            self._doubted_until = self._clock.monotonic() + _DOUBT_SECONDS
            self._down.clear()
            self._gatekeeper.lift("store_down")

    async def _trouble(self) -> None:
        while not self._down.is_set():
            try:
                async with asyncio.timeout(_QUIET_SECONDS):
                    await self._down.wait()
            except TimeoutError:
                await self._look()

    async def _look(self) -> None:
        try:
            await self._store.ping()
        except StoreUnavailable as error:
            self.failed(error)

    async def _probe(self) -> None:
        pause, longest = self._shut_seconds, _PROBE_SECONDS[1]
        while True:
            await self._sleep(pause)
            try:
                async with asyncio.timeout(_PROBE_PATIENCE_SECONDS):
                    await self._store.probe_commit()
            except (StoreError, TimeoutError):
                pause = min(pause * 2, longest)
            else:
                return


class DepthWatch:
    """Closes the gate while more than `high` is ready, and opens it again at `low` (REQ-INFRA-SCALE-007)."""

    def __init__(
        self,
        stream: Depth,
        store: Depth,
        gatekeeper: Gatekeeper,
        *,
        high: int,
        low: int,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._stream = stream
        self._store = store
        self._gatekeeper = gatekeeper
        self._high = high
        self._low = low
        self._sleep = sleep

    async def run(self) -> None:
        """Look again and again; for ever."""
        while True:
            await self._sleep(await self.look())

    async def look(self) -> float:
        """Look once; returns in how many seconds to look again."""
        depth, again_seconds = await self._depth()
        if depth is None:
            return again_seconds
        QUEUE_DEPTH.set(depth)
        if depth > self._high:
            self._gatekeeper.close("busy")
        elif depth <= self._low:
            self._gatekeeper.lift("busy")
        return again_seconds

    async def _depth(self) -> tuple[int | None, float]:
        """The stream's depth, else the store's; None: neither can tell, and all stays as it is."""
        try:
            return await self._stream.depth(), _DEPTH_SECONDS
        except StreamUnavailable:
            pass
        try:
            return await self._store.depth(), _STORE_DEPTH_SECONDS
        except StoreUnavailable:
            return None, _DEPTH_SECONDS
