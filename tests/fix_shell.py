"""The command line over a store in memory. Import into a conftest: `from fix_shell import shell`."""

from __future__ import annotations

import json
import sys
import types
from typing import Any

import pytest

from smtp_proxy import cli
from smtp_proxy.config import Settings
from smtp_proxy.store import MemoryStore, Store


class Shell:
    """Runs commands and keeps what they wrote."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.store = MemoryStore()
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        self._capsys.readouterr()
        code = cli.run(arguments)
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self, *arguments: str) -> Any:
        assert self(*arguments, "--json") == 0, self.err
        return json.loads(self.out)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    made = Shell(capsys)

    async def connect(settings: Settings, **_: Any) -> MemoryStore:
        await made.store.ping()
        return made.store

    monkeypatch.setattr(Store, "connect", connect)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)
    return made


def module(name: str, monkeypatch: pytest.MonkeyPatch, **contents: Any) -> None:
    fake = types.ModuleType(name)
    vars(fake).update(contents)
    monkeypatch.setitem(sys.modules, name, fake)
