"""The release before this one: its Python, taken from the history of this repository, beside today's core.

Workers use nothing of the core, so an old worker is wholly old. An old ingress would need its own core and is shown by
its statements alone.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

import smtp_proxy

COMMIT = "947fc3ce1dfcd791f084700adb2255f10221af4e"
_ROOT = Path(__file__).parents[1]


def previous_release(folder: Path) -> Path:
    """A folder for PYTHONPATH. Skips the test where the history is not there (an archive, a shallow clone)."""
    archive = subprocess.run(["git", "-C", str(_ROOT), "archive", COMMIT, "pyapp"], capture_output=True, check=False)
    if archive.returncode != 0:
        pytest.skip(f"commit {COMMIT[:7]} is not in this clone")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        # Our own archive; Debian's Python 3.11 has no filters, later ones warn where there is none.
        safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(folder, **safely)
    for library in Path(smtp_proxy.__file__).parent.glob("_core*.so"):
        shutil.copy(library, folder / "pyapp" / "smtp_proxy")
    return folder / "pyapp"
