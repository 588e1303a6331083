"""What a killed supervisor left behind is known by id and time of birth, and by nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smtp_proxy.dev import leftovers
from smtp_proxy.dev.home import Home


@pytest.mark.parametrize(
    "noted",
    [
        "{}",
        '{"x": 1}',
        '{"smtp": [1]}',
        '{"smtp": ["1", "2"]}',
        '{"smtp": [1, null]}',
        f'{{"smtp": [{os.getpid()}, "1"]}}',  # this process, but born at another time
        '{"smtp": [4194304999, "1"]}',
    ],
)
async def test_nobody_else_is_ended(tmp_path: Path, noted: str) -> None:
    home = Home(tmp_path)
    (tmp_path / leftovers.FILE).write_text(noted)
    await leftovers.end(home)
    assert home.read_json(leftovers.FILE) == {}
