"""One program that runs beside us until it is told to stop, and is started again when it ends before.

start ─▶ probe until it answers ─▶ ready ─▶ (ended? wait, start again) ─▶ stop signal ─▶ ended
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from smtp_proxy.errors import ConfigurationError, ServiceFailed

log = logging.getLogger(__name__)

_PROBE_EVERY_SECONDS = 0.05
_START_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
# A program that ran for so long is taken to be well again: the next pause is short.
_WELL_AFTER_SECONDS = 10.0
_TRIES_BEFORE_READY = 5
_HURRY_SECONDS = 2.0
_LINE_MAX_BYTES = 1024 * 1024
_LAST_WORDS_SECONDS = 0.5
# How our own commands say that they were asked for wrongly (`cli`): trying again can not help.
_OPERATOR_EXIT_CODE = 2


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. `probe` returns None when it answers, else a sentence."""

    name: str
    command: Sequence[str]
    probe: Callable[[], Awaitable[str | None]]
    say: Callable[[str], None]  # takes each line that it writes
    environment: Mapping[str, str] | None = None  # None: ours
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 15.0
    hurry_signal: signal.Signals = signal.SIGKILL
    ours: bool = True  # its exit codes are ours


class Running:
    """A program's life. `run` is a task; all else is called from the same event loop."""

    def __init__(
        self, program: Program, changed: Callable[[], None], *, first_pause_seconds: float = _FIRST_PAUSE_SECONDS
    ) -> None:
        self.program = program
        self._first_pause_seconds = first_pause_seconds
        self._being_made = asyncio.Lock()  # `stop` must not look for a process that is just being made
        self._changed = changed  # called when the process id is another
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._was_ready = False
        self._failures = 0

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def pid(self) -> int | None:
        """None: it does not run now."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def run(self) -> None:
        """Keep it running until `stop`.

        Raises:
            ServiceFailed: it ended before it was ever ready, and trying again did not help.
            ConfigurationError: the program can not be started at all.
        """
        pause = self._first_pause_seconds
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._once()
            if self._stopping.is_set():
                return
            self._refuse_hopeless(code)
            if time.monotonic() - began > _WELL_AFTER_SECONDS:
                pause = self._first_pause_seconds
            log.warning(
                "%s ended (%s); starting it again in %.1f s", self.name, describe(code), pause,
                extra={"action": "service_ended", "ended": self.name, "code": code},
            )  # fmt: skip
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def ready(self) -> None:
        """Wait until it answers.

        Raises:
            ServiceFailed: it does not within a minute.
        """
        deadline = time.monotonic() + _START_SECONDS
        while (trouble := await self.trouble()) is not None:
            if time.monotonic() > deadline:
                raise ServiceFailed(f"{self.name} did not get ready within {_START_SECONDS:.0f} s: {trouble}")
            await asyncio.sleep(_PROBE_EVERY_SECONDS)
        self._was_ready = True

    async def trouble(self) -> str | None:
        """None: it runs and answers."""
        return await self.program.probe() if self.pid is not None else "it does not run"

    async def stop(self, hurry: asyncio.Event) -> None:
        """Ask it to end and wait; insist when it takes too long, or when `hurry` is set."""
        self._stopping.set()
        async with self._being_made:
            process = self._process
        if process is None or process.returncode is not None:
            return
        self._signal(self.program.stop_signal)
        if await _ends(process, self.program.stop_seconds, hurry):
            return
        if hurry.is_set():
            self._signal(self.program.hurry_signal)
            if await _ends(process, _HURRY_SECONDS, asyncio.Event()):
                return
        log.warning("%s does not end; killing it", self.name, extra={"action": "service_killed"})
        self._signal(signal.SIGKILL)
        await process.wait()

    # -- below

    async def _once(self) -> int:
        async with self._being_made:
            self._process = process = await _make(self.program)
        self._changed()
        words = asyncio.create_task(self._listen(process))
        code = await process.wait()
        # What a killed program left behind may hold its end of the pipe for long.
        await asyncio.wait([words], timeout=_LAST_WORDS_SECONDS)
        words.cancel()
        self._changed()
        return code

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                continue  # longer than the limit: that part is dropped
            if not line:
                return
            self.program.say(line.decode("utf-8", "replace").rstrip("\r\n"))

    def _refuse_hopeless(self, code: int) -> None:
        if self._was_ready:
            return
        self._failures += 1
        if (self.program.ours and code == _OPERATOR_EXIT_CODE) or self._failures >= _TRIES_BEFORE_READY:
            raise ServiceFailed(f"{self.name} could not be started ({describe(code)}); what it said is above")

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number) if number is signal.SIGKILL else os.kill(self.pid, number)


async def _make(program: Program) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *program.command,
            env=program.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LINE_MAX_BYTES,
            # Ctrl-C reaches the whole foreground group; the order of stopping is ours to choose.
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigurationError(f"{program.name}: can not start {program.command[0]}: {error.strerror}") from None


async def _ends(process: asyncio.subprocess.Process, seconds: float, hurry: asyncio.Event) -> bool:
    """Wait for its end, for so long or until `hurry`."""
    waits = [asyncio.ensure_future(process.wait()), asyncio.ensure_future(hurry.wait())]
    try:
        done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return waits[0] in done
    finally:
        for wait in waits:
            wait.cancel()


def describe(code: int) -> str:
    """`exit code 1`, or `killed by SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
