"""Other people's programs that tests run. In CI they are there (.ci/run installs them); elsewhere one does without."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str, package: str) -> str:
    """Where it is. Missing, the test is skipped; in CI it fails."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{name} is not installed; .ci/run installs {package}")
    if found is None:
        pytest.skip(f"no {name}: apt-get install {package}")
    return found
