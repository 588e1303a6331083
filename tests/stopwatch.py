"""How long something took, on a machine that may stand still meanwhile: for tests that it does not take too long."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final, Self

_TICK_SECONDS: Final = 0.01
_NOTICED_SECONDS: Final = 0.02


class Stopwatch:
    """`with Stopwatch() as watch:`, then `watch.seconds`: those in which another thread of ours did not have to wait.

    What the process computed meanwhile counts, in whichever thread, and also if it let no other thread in.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.stood_seconds = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stopwatch", daemon=True)
        self._began = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        self._began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, trouble: BaseException | None, at: TracebackType | None
    ) -> None:
        took = time.monotonic() - self._began
        self._is_over.set()
        self._thread.join()
        self.seconds = max(0.0, took - self.stood_seconds)

    def _watch(self) -> None:
        while not self._is_over.is_set():
            before, worked = time.monotonic(), time.process_time()
            time.sleep(_TICK_SECONDS)
            late = time.monotonic() - before - _TICK_SECONDS - (time.process_time() - worked)
            if late > _NOTICED_SECONDS:
                self.stood_seconds += late
