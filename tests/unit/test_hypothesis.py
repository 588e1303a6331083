"""In CI the property tests try the same examples each time: a failure there is one that can be seen again."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings


@pytest.mark.skipif("CI" not in os.environ, reason="elsewhere they look for new examples")
def test_ci_is_deterministic() -> None:
    assert settings.default is not None
    assert settings.default.derandomize
    assert settings.default.database is None
