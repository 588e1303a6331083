"""Shutdown in three words: *close* (take nothing new), *drain* (finish what is under way), *leave* (at the deadline).

A service makes one Lifecycle, registers what it has to close and to drain, and waits. Whoever holds work takes a
labelled token; while draining, the log names what is still waited for. A second signal leaves at once.

    lifecycle = Lifecycle(settings.shutdown_timeout_seconds, settings.shutdown_delay_seconds)
    lifecycle.install_signals()
    lifecycle.on_close("listeners", server.drain)
    await lifecycle.run_until_stopped()     # after SIGTERM: readiness false, delay, close callbacks, drain tokens
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import Enum

log = logging.getLogger(__name__)

Close = Callable[[], Awaitable[object] | object]
_REPORT_SECONDS = 2.0


class Stage(Enum):
    """Where a service stands."""

    RUNNING = "running"
    STOPPING = "stopping"  # readiness is false, work is still taken
    CLOSED = "closed"  # nothing new
    DRAINED = "drained"  # nothing left


class Lifecycle:
    """The life of one service; all of it on the event loop's thread."""

    def __init__(self, timeout_seconds: float, delay_seconds: float = 0.0) -> None:
        self.stage = Stage.RUNNING
        self._timeout_seconds = timeout_seconds
        self._delay_seconds = delay_seconds
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._holders: Counter[str] = Counter()
        self._closers: list[tuple[str, Close]] = []
        self._failure: BaseException | None = None

    # -- asked to stop

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    @property
    def ready(self) -> bool:
        """What /readyz says as far as shutdown is concerned."""
        return not self._stop.is_set()

    def install_signals(self) -> None:
        """SIGTERM and SIGINT stop; a second one leaves at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, signal.Signals(number).name)

    def stop(self, why: str) -> None:
        """Begin to stop. Safe to call again."""
        if not self._stop.is_set():
            log.info("stopping: %s", why, extra={"action": "stopping"})
            self.stage = Stage.STOPPING
            self._stop.set()

    def fail(self, error: BaseException) -> None:
        """A part of the service ended that should not have: stop, and raise `error` at the end."""
        self._failure = self._failure or error
        self.stop(f"{type(error).__name__}: {error}")

    def watch(self, task: asyncio.Task[object]) -> None:
        """Should this task fail while the service runs, the service stops with its error."""

        def ended(done: asyncio.Task[object]) -> None:
            if not done.cancelled() and (error := done.exception()) is not None:
                self.fail(error)

        task.add_done_callback(ended)

    async def stopped(self) -> None:
        """Wait until asked to stop."""
        await self._stop.wait()

    # -- who holds work

    @contextmanager
    def hold(self, label: str) -> Iterator[None]:
        """Work is under way; drain waits for it and names `label`."""
        self._holders[label] += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._holders[label] -= 1
            if not self._holders[label]:
                del self._holders[label]
            if not self._holders:
                self._idle.set()

    def waiting_for(self) -> dict[str, int]:
        """Labels and how many tokens of each are out."""
        return dict(self._holders)

    def on_close(self, label: str, close: Close) -> None:
        """Call this at *close*, in the order registered; a coroutine is awaited. A failure does not stop the rest."""
        self._closers.append((label, close))

    # -- the three words

    async def run_until_stopped(self) -> bool:
        """Wait for the signal, then close and drain. True: all work was finished in time.

        Raises:
            BaseException: what `fail` was given.
        """
        await self._stop.wait()
        if self._delay_seconds and self._failure is None:
            await self._wait(self._hurry, self._delay_seconds)
        await self._close()
        drained = await self._drain()
        if self._failure is not None:
            raise self._failure
        return drained

    async def _close(self) -> None:
        self.stage = Stage.CLOSED
        for label, close in self._closers:
            try:
                result = close()
                if inspect.isawaitable(result):
                    await result
            except Exception:
                log.exception("closing %s failed", label, extra={"action": "close_failed"})

    async def _drain(self) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_seconds
        while self._holders and not self._hurry.is_set():
            left = deadline - loop.time()
            if left <= 0:
                break
            log.info("waiting for %s", self._described(), extra={"action": "draining", "seconds_left": round(left, 1)})
            await self._wait_idle(min(_REPORT_SECONDS, left))
        if self._holders:
            log.warning("leaving behind %s", self._described(), extra={"action": "left_behind"})
            return False
        self.stage = Stage.DRAINED
        return True

    async def _wait_idle(self, seconds: float) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (self._idle, self._hurry)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            pass

    def _described(self) -> str:
        # One token may stand for many things, such as all sessions, or for none of them: it is not counted.
        return ", ".join(f"{count} {label}" if count > 1 else label for label, count in sorted(self._holders.items()))

    def _signalled(self, name: str) -> None:
        if self._stop.is_set():
            log.warning("leaving at once: %s", name, extra={"action": "leaving"})
            self._hurry.set()
        self.stop(name)
