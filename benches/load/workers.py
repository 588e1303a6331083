"""Several worker processes of one `smtp-proxy dev`, started and ended as ECS would start and end tasks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from benches.load.ours import Ours
from benches.load.processes import ROOT, end, free_port, wait_for

_ENDING_SECONDS = 60.0


class Workers:
    """As many as are wanted; `settings` are environment variables of each."""

    def __init__(self, ours: Ours, folder: Path, settings: Mapping[str, str]) -> None:
        self._settings = {**ours.database(), "REDIS_URL": ours.redis_url(), "NO_COLOR": "1", **settings}
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        self._ending: list[subprocess.Popen[bytes]] = []
        self._started = 0
        self.start_seconds = 0.0  # which the last one took until it was ready

    def __len__(self) -> int:
        return len(self._running)

    def want(self, count: int) -> None:
        """Start what is missing and wait until it is ready; tell what is too much to end, and go on meanwhile."""
        began = time.monotonic()
        new = [self._start() for _ in range(count - len(self._running))]
        for process, port in new:
            wait_for("worker", lambda port=port: _ready(port), process)  # type: ignore[misc]
        if new:
            self.start_seconds = time.monotonic() - began
        while len(self._running) > count:
            process = self._running.pop()
            process.terminate()
            self._ending.append(process)

    def stop(self) -> None:
        """End all; those that were told before are waited for."""
        for process in (*self._running, *self._ending):
            end(process, _ENDING_SECONDS)
        self._running = []

    def failed(self) -> list[int]:
        """Exit codes, other than 0, of those that have ended."""
        codes = [process.poll() for process in (*self._running, *self._ending)]
        return [code for code in codes if code]

    def _start(self) -> tuple[subprocess.Popen[bytes], int]:
        self._started += 1
        port = free_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SMTP_", "DB_"))}
        with (self._folder / f"worker-{self._started}.log").open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "smtp_proxy", "serve", "worker"],
                cwd=ROOT,
                env={**environment, **self._settings, "HEALTH_PORT": str(port)},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append(process)
        return process, port


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
