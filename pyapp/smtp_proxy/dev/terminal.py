"""Where all lines go: stderr, written by a thread of its own.

Whoever started us may have given us a pipe and not read it. Then lines are dropped (and counted), and no service waits.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from typing import IO

_WAITING_LINES = 10_000
_LEAVING_SECONDS = 2.0


class Terminal:
    """A text stream for `logs.configure` and for what the services say; never blocks."""

    def __init__(self, out: IO[str] | None = None) -> None:
        self._out = out if out is not None else sys.stderr
        self._lines: queue.Queue[str | None] = queue.Queue(_WAITING_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="terminal", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Write later. What comes in one call stays together."""
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._dropped += 1
        return len(text)

    def line(self, text: str) -> None:
        """Write a whole line."""
        self.write(text + "\n")

    def flush(self) -> None:
        """Streams have it; the thread flushes."""

    def isatty(self) -> bool:
        return self._out.isatty()

    def close(self) -> None:
        """Wait a moment for what is still to be written."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=_LEAVING_SECONDS)
        self._thread.join(_LEAVING_SECONDS)

    def _run(self) -> None:
        while (text := self._lines.get()) is not None:
            if self._dropped:
                text = f"({self._dropped} lines were dropped: nobody read them)\n{text}"
                self._dropped = 0
            try:
                self._out.write(text)
                if self._lines.empty():
                    self._out.flush()
            except (OSError, ValueError):
                return  # closed by whoever started us; there is nobody to tell
