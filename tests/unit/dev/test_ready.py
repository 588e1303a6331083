"""Where the ready file can not be is told before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtp_proxy.dev import valkey
from smtp_proxy.dev.ready import ReadyFile
from smtp_proxy.errors import ConfigurationError


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--ready-file .*: that is a folder"):
        ReadyFile(tmp_path)
    with pytest.raises(ConfigurationError, match="there is no folder"):
        ReadyFile(tmp_path / "missing" / "ready.json")


def test_it_comes_whole_and_goes(tmp_path: Path) -> None:
    file = ReadyFile(tmp_path / "ready.json")
    file.write({"a": 1})
    assert (tmp_path / "ready.json").read_text() == '{\n  "a": 1\n}\n'
    file.remove()
    file.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_path_with_quotes_stays_one_word_for_valkey() -> None:
    assert valkey._quoted('/q"uo\\te') == '"/q\\"uo\\\\te"'
