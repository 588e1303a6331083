"""Every Python test: first those that need both cores, then those that mostly wait beside those that mostly compute.

    python tests/side_by_side.py [what pytest takes, but no paths, and nothing that names one file for its results]

One after the other they take half as long again. What those that mostly compute had to say is printed when all are
over. `-x` ends its own session alone.
"""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
# Whole systems under load, whose tests say how long something may take.
ALONE = ("tests/e2e",)
WAITING = ("tests/integration",)
# Pytest's exit codes. Of one part, `-k` may have left nothing.
INTERRUPTED, BAD_USAGE, NOTHING_COLLECTED = 2, 4, 5


def the_rest(root: Path) -> list[str]:
    """Whatever else pytest would find by itself."""
    with (root / "pyproject.toml").open("rb") as file:
        folders: list[str] = tomllib.load(file)["tool"]["pytest"]["ini_options"]["testpaths"]
    return [*folders, *(f"--ignore={folder}" for folder in (*ALONE, *WAITING))]


def status(codes: Sequence[int]) -> int:
    """Of all parts: the first that is not well; nothing at all to run is not well either."""
    bad = [code for code in codes if code not in (0, NOTHING_COLLECTED)]
    return bad[0] if bad else min(codes)


def unsuitable(root: Path, options: Sequence[str]) -> str:
    """What of it would not do for several sessions; empty: nothing."""
    for before, option in itertools.pairwise(["", *options]):
        if option.startswith(("--basetemp", "--junit", "--log-file", "--benchmark-json")):
            return option
        if before not in ("-k", "-m") and (root / option.split("::")[0]).exists():
            return option
    return ""


class Parts:
    """The sessions of pytest, which signals end; after one that should, none is begun any more."""

    def __init__(self, root: Path, options: Sequence[str]) -> None:
        self._root = root
        self._pytest = [sys.executable, "-m", "pytest", *options]
        self._running: list[subprocess.Popen[bytes]] = []
        self.is_over = False

    def begin(self, arguments: Sequence[str], said: IO[bytes] | None = None) -> Callable[[], int]:
        """Begin one, which says there what it has to say. Returns how to wait for its exit code."""
        if self.is_over:
            return lambda: INTERRUPTED
        error = None if said is None else subprocess.STDOUT
        part = subprocess.Popen([*self._pytest, *arguments], cwd=self._root, stdout=said, stderr=error)
        self._running.append(part)
        if self.is_over:  # since a moment ago
            part.send_signal(signal.SIGINT)
        return part.wait

    def stop(self, number: int, _frame: FrameType | None) -> None:
        """Each takes its servers down. Ctrl-C reaches every session by itself; SIGTERM comes here alone."""
        self.is_over = True
        if number == signal.SIGTERM:
            for part in self._running:
                part.send_signal(signal.SIGINT)


def run(root: Path, options: Sequence[str]) -> int:
    """Returns pytest's exit code, when all of it has ended."""
    parts = Parts(root, options)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, parts.stop)
    codes = [parts.begin(ALONE)()]
    with tempfile.TemporaryFile() as said:
        beside = parts.begin(the_rest(root), said)
        codes += [parts.begin(WAITING)(), beside()]
        said.seek(0)
        shutil.copyfileobj(said, sys.stdout.buffer)
        sys.stdout.flush()
    return INTERRUPTED if parts.is_over else status(codes)


def main(options: Sequence[str]) -> int:
    """Returns the exit code."""
    if wrong := unsuitable(ROOT, options):
        sys.stderr.write(f"{wrong}: does not suit several sessions; for some tests, call .venv/bin/pytest\n")
        return BAD_USAGE
    return run(ROOT, options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
