"""A wall clock that can be set wrong for one process, by libfaketime; the monotonic clock stays true, as after NTP."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def _library() -> Path | None:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return found[0] if found else None


class FakeClock:
    """Shared with a process by its environment. Without libfaketime nothing can be shifted."""

    library = _library()

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / f"{name}.clock"
        self._file.write_text("+0\n")

    def shift(self, seconds: int) -> None:
        """Let it be wrong by so much, from about now on (the library looks once a second)."""
        self._file.write_text(f"{seconds:+d}\n")

    def environment(self) -> dict[str, str]:
        if self.library is None:
            return {}
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
            "NO_FAKE_STAT": "1",
        }

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """What this process starts inside has this clock."""
        before = dict(os.environ)
        os.environ.update(self.environment())
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
