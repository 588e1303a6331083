"""The control socket: who may open it, what it says, and what it does with one that is there already."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from smtp_proxy.cli.control import ask
from smtp_proxy.errors import CertificateProblem, ConfigurationError, ControlUnreachable, InvalidValue
from smtp_proxy.ingress import control


async def good(_: Mapping[str, Any]) -> dict[str, Any]:
    return {"certificates": [{"names": ["ä.example"]}]}


async def bad(_: Mapping[str, Any]) -> dict[str, Any]:
    raise CertificateProblem("fullchain.pem: it expired")


async def broken(_: Mapping[str, Any]) -> dict[str, Any]:
    raise ZeroDivisionError


async def echo(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {"asked": dict(asked)}


VERBS = {"good": good, "bad": bad, "broken": broken}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control" / "smtp.sock"


def modes(folder: Path) -> dict[Path, int]:
    """Rights of a folder and of all that is in it."""
    return {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}


def inode(path: Path) -> int:
    return path.stat().st_ino


def replaced(path: Path) -> int:
    """Put another socket in place; its inode."""
    path.unlink()
    control.open_socket(path).close()
    return inode(path)


async def said(path: Path, question: bytes) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(question)
    answer: dict[str, Any] = json.loads(await reader.readline())
    assert await reader.read() == b""
    writer.close()
    return answer


async def test_a_question_and_its_answer(path: Path) -> None:
    async with control.serve(path, VERBS):
        assert modes(path.parent) == {path.parent: 0o700, path: 0o600}
        answer = await asyncio.to_thread(ask, path, "good")
        assert answer["certificates"] == [{"names": ["ä.example"]}]
        with pytest.raises(CertificateProblem, match=r"^fullchain\.pem: it expired$"):
            await asyncio.to_thread(ask, path, "bad")
    assert modes(path.parent) == {path.parent: 0o700}


async def test_a_question_has_fields(path: Path) -> None:
    async with control.serve(path, {"echo": echo, "bad": bad}):
        answer = await asyncio.to_thread(ask, path, "echo", address="::1", seconds=0.5)
        assert answer["asked"] == {"verb": "echo", "address": "::1", "seconds": 0.5}
        with pytest.raises(InvalidValue, match="it expired"):
            await asyncio.to_thread(ask, path, "bad", refusal=InvalidValue)


@pytest.mark.parametrize("question", [b"\n", b"reload\n", b"[]\n", b'{"verb": "x"}\n', b'{"verb": []}\n', b"\xff\n"])
async def test_what_makes_no_sense_is_told_what_would(path: Path, question: bytes) -> None:
    async with control.serve(path, VERBS):
        assert await said(path, question) == {"ok": False, "error": 'ask with {"verb": ...}, one of good, bad, broken'}


async def test_our_own_mistakes_stay_in_the_log(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with control.serve(path, VERBS):
        assert "log says" in (await said(path, b'{"verb": "broken"}\n'))["error"]
    assert "ZeroDivisionError" in caplog.text


async def test_who_says_nothing_or_too_much_holds_up_nobody(path: Path) -> None:
    async with control.serve(path, VERBS):
        _, silent = await asyncio.open_unix_connection(path)
        reader, endless = await asyncio.open_unix_connection(path)
        endless.write(b"x" * 200_000)
        assert (await said(path, b'{"verb": "good"}\n'))["ok"]
        assert await reader.read() == b""
        silent.close()
        endless.close()


async def test_one_left_behind_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with control.serve(path, VERBS):
        assert (await asyncio.to_thread(ask, path, "good"))["ok"]


async def test_one_that_answers_is_left_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with control.serve(path, VERBS):
        async with control.serve(path, {}):
            assert f"another service answers at {path}" in caplog.text
            assert (await asyncio.to_thread(ask, path, "good"))["ok"]
        assert (await asyncio.to_thread(ask, path, "good"))["ok"]


async def test_a_successor_s_is_not_taken_away(path: Path) -> None:
    async with control.serve(path, VERBS):
        successor = replaced(path)
    assert inode(path) == successor


def test_a_file_is_not_taken_for_a_socket(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="is no socket"):
        control.open_socket(path)
    assert path.read_text() == "precious"


def test_a_path_too_long_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"too long for a socket.*SMTP_CONTROL_SOCKET"):
        control.open_socket(tmp_path / ("x" * 120))


def test_nobody_there_is_said_in_words(path: Path) -> None:
    with pytest.raises(ControlUnreachable, match=rf"^there is no control socket at {path}; is .*SMTP_PROXY_DATA_DIR"):
        ask(path, "reload")
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(ControlUnreachable, match=r"^no service answers any more"):
        ask(path, "reload")
