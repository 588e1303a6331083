"""The load engine's command, and its JSON."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benches.load.processes import ROOT

PASSWORD_VARIABLE = "SMTP_LOAD_PASSWORD"


COMMAND = ROOT / "target/release/smtp-proxy-load"


def build() -> Path:
    """Build the engine as it is in the tree; returns COMMAND."""
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "smtp-proxy-client-engine"], cwd=ROOT, check=True)
    return COMMAND


@dataclass(frozen=True)
class Target:
    """Where load goes. Only ever to loopback."""

    port: int
    options: tuple[str, ...] = ()
    password: str = ""


@dataclass(frozen=True)
class Load:
    """What is sent. `rate` None: as fast as answered."""

    connections: int
    seconds: float
    size_bytes: int = 4096
    warmup_seconds: float = 1.0
    rate: float | None = None
    messages: int | None = None
    messages_per_connection: int = 0
    senders: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    options: tuple[str, ...] = field(default=())

    def arguments(self) -> list[str]:
        amount = ["--seconds", str(self.seconds)] if self.messages is None else ["--messages", str(self.messages)]
        arguments = [
            *amount, "--connections", str(self.connections), "--size", str(self.size_bytes),
            "--warmup-seconds", str(self.warmup_seconds),
            "--messages-per-connection", str(self.messages_per_connection),
        ]  # fmt: skip
        if self.rate is not None:
            arguments += ["--rate", str(self.rate)]
        for sender in self.senders:
            arguments += ["--from", sender]
        for recipient in self.recipients:
            arguments += ["--to", recipient]
        return [*arguments, *self.options]


def run(command: Path, target: Target, load: Load) -> dict[str, Any]:
    """One run. Raises RuntimeError when the generator could not run; refused mail is in the result's `errors`."""
    arguments = [str(command), "--address", f"127.0.0.1:{target.port}", *target.options, *load.arguments()]
    environment = {**os.environ, PASSWORD_VARIABLE: target.password}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        raise RuntimeError(f"the load generator failed: {done.stderr.strip()}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
