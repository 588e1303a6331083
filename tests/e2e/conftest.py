from __future__ import annotations

import pytest
from fix_dev import dev, make_dev

__all__ = ["dev", "make_dev"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.e2e)
