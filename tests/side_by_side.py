"""Every Python test: first those that need both cores, then those that mostly wait beside those that mostly compute.

    python tests/side_by_side.py [what pytest takes, but no paths]

One after the other they take half as long again. What runs beside the first is printed when it is over.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Whole systems under load, whose tests say how long something may take.
ALONE = ("tests/e2e",)
WAITING = ("tests/integration",)
# Pytest's exit codes. Of one part, `-k` may have left nothing.
INTERRUPTED, NOTHING_COLLECTED = 2, 5


def the_rest(root: Path) -> list[str]:
    """Whatever else pytest would find by itself."""
    with (root / "pyproject.toml").open("rb") as file:
        folders: list[str] = tomllib.load(file)["tool"]["pytest"]["ini_options"]["testpaths"]
    return [*folders, *(f"--ignore={folder}" for folder in (*ALONE, *WAITING))]


def status(codes: Sequence[int]) -> int:
    """Of all parts: the first that is not well; nothing at all to run is not well either."""
    bad = [code for code in codes if code not in (0, NOTHING_COLLECTED)]
    return bad[0] if bad else min(codes)


def run(root: Path, options: Sequence[str]) -> int:
    """Returns pytest's exit code; of Ctrl-C its own, when it has taken its servers down."""
    signal.signal(signal.SIGINT, lambda *_: None)  # it reaches every pytest too, and is theirs to end by
    pytest = [sys.executable, "-m", "pytest", *options]
    codes = [subprocess.Popen([*pytest, *ALONE], cwd=root).wait()]
    if codes[0] == INTERRUPTED:
        return INTERRUPTED
    with tempfile.TemporaryFile() as said:
        beside = subprocess.Popen([*pytest, *the_rest(root)], cwd=root, stdout=said, stderr=subprocess.STDOUT)
        codes.append(subprocess.Popen([*pytest, *WAITING], cwd=root).wait())
        codes.append(beside.wait())
        said.seek(0)
        shutil.copyfileobj(said, sys.stdout.buffer)
        sys.stdout.flush()
    return status(codes)


if __name__ == "__main__":
    sys.exit(run(ROOT, sys.argv[1:]))
