"""A whole smtp-proxy, started by `smtp-proxy dev` and used through its documented contract (docs/DEV.md) alone.

Import the fixtures into a conftest: `from fix_dev import dev, make_dev`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smtp_proxy.config import Settings, environment_name

_START_SECONDS = 60
_STOP_SECONDS = 60


class Dev:
    """One `smtp-proxy dev`; the API, which most tests have no use for, is in it only where it is asked for."""

    def __init__(self, folder: Path, *arguments: str, api: bool = False) -> None:
        self.ready_file = folder / "ready.json"
        self.data = folder / "data"
        self.log = folder / "log"
        self.arguments = arguments if api else (*arguments, "--without", "api")
        self.process: subprocess.Popen[bytes] | None = None
        self.ready: dict[str, Any] = {}

    def start(self) -> Dev:
        names = {environment_name(field) for field in Settings.model_fields}
        environment = {name: value for name, value in os.environ.items() if name not in names}
        command = [
            sys.executable, "-P", "-m", "smtp_proxy", "dev", "--ready-file", str(self.ready_file),
            "--data", str(self.data), *self.arguments,
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        until(lambda: self._is_ready() or self._ended(), _START_SECONDS, lambda: f"not ready:\n{self.tail()}")
        self.reread()
        return self

    def reread(self) -> dict[str, Any]:
        assert self.ready_file.exists(), self.tail()
        self.ready = json.loads(self.ready_file.read_text())
        return self.ready

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop and return the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        try:
            return self.process.wait(_STOP_SECONDS)
        finally:
            self.process = None

    def kill(self, service: str) -> None:
        """Kill -9 one service as it is now."""
        os.kill(self.reread()["pids"][service], signal.SIGKILL)

    def until_replaced(self, service: str, pid: int, seconds: float = 30) -> int:
        """Wait until another process is that service and answers; returns its id."""
        until(lambda: self.reread()["pids"].get(service, pid) != pid, seconds, lambda: f"{service} is not back")
        return int(self.ready["pids"][service])

    def sink(self, after: int = 0) -> list[dict[str, Any]]:
        """List what the sink keeps."""
        messages: list[dict[str, Any]] = json.loads(self._http(f"/messages?after={after}"))
        return messages

    def raw(self, number: int) -> bytes:
        """One message of the sink."""
        return self._http(f"/messages/{number}")

    def forget(self) -> None:
        """Empty the sink."""
        request = urllib.request.Request(self.ready["sink"]["http_url"] + "/messages", method="DELETE")
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 204

    def command(self, *arguments: str, given: str = "") -> str:
        """Run a command of ours; what it printed."""
        command = [sys.executable, "-P", "-m", "smtp_proxy", *arguments]
        done = subprocess.run(
            command, env=self.environment(), input=given, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def environment(self) -> dict[str, str]:
        """For other commands of ours."""
        return {**os.environ, **self.ready["database"], "REDIS_URL": self.ready["redis_url"], "NO_COLOR": "1"}

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""

    def _http(self, path: str) -> bytes:
        with urllib.request.urlopen(self.ready["sink"]["http_url"] + path, timeout=30) as answer:
            content: bytes = answer.read()
            return content

    def _is_ready(self) -> bool:
        """There is a file, and this run wrote it: as docs/DEV.md tells harnesses to do."""
        assert self.process is not None
        try:
            return bool(json.loads(self.ready_file.read_text())["pids"]["supervisor"] == self.process.pid)
        except (OSError, ValueError):
            return False

    def _ended(self) -> bool:
        return self.process is None or self.process.poll() is not None


def until(condition: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    """Wait for a condition. Raises AssertionError with what `otherwise` says."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One for all tests of a module that do it no harm; with a plaintext listener."""
    running = Dev(tmp_path_factory.mktemp("dev"), "--plaintext-port", "0").start()
    yield running
    assert running.stop() == 0, running.tail()


@pytest.fixture
def make_dev(tmp_path: Path) -> Iterator[Callable[..., Dev]]:
    """Make one of this test's own; it is started by the test and stopped after it."""
    made: list[Dev] = []

    def make(*arguments: str, api: bool = False) -> Dev:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Dev(folder, *arguments, api=api))
        return made[-1]

    yield make
    for each in made:
        each.stop()
