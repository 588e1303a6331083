"""What is measured: the interface, and aiosmtpd."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benches.load import cpu
from benches.load.generator import Target
from benches.load.processes import ROOT, answers, end, free_port, wait_for


class Unavailable(Exception):
    """It can not be measured here; the text says why and what would help."""


@dataclass(frozen=True)
class Certificate:
    """What a peer needs for the same TLS and AUTH as ours: its files, and a login that it is to take."""

    ca_file: Path
    certificate_file: Path
    key_file: Path
    user: str
    password: str

    def target(self, port: int) -> Target:
        """Implicit TLS (RFC 8314 3.3) and AUTH PLAIN."""
        options = (
            "--tls",
            "implicit",
            "--ca-file",
            str(self.ca_file),
            "--server-name",
            "localhost",
            "--user",
            self.user,
        )
        return Target(port, options, self.password)


class Peer(Protocol):
    """A server under load. Started once, idle while others are measured."""

    name: str

    def start(self) -> None:
        """Raises Unavailable."""

    def version(self) -> str: ...

    def target(self) -> Target: ...

    def groups(self) -> cpu.Groups:
        """Root processes by group; `postgres` apart from `server`."""

    def clean(self) -> None:
        """Forget the mail of the last run, so that each run begins alike. Not timed."""

    def stop(self) -> None: ...


class OneProcess:
    """A peer whose server is one process that we start, with its children."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def groups(self) -> cpu.Groups:
        assert self._process is not None
        return {"server": [self._process.pid]}

    def clean(self) -> None:
        """It keeps nothing."""

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)


class Aiosmtpd(OneProcess):
    """aiosmtpd with a no-op handler, in a process of its own."""

    name = "aiosmtpd no-op"

    def __init__(self) -> None:
        super().__init__()
        self._port = free_port()

    def start(self) -> None:
        try:
            self.version()
        except importlib.metadata.PackageNotFoundError:
            raise Unavailable("aiosmtpd is not installed: pip install 'smtp-proxy[dev]'") from None
        command = [sys.executable, "-m", "benches.load.noop_aiosmtpd", str(self._port)]
        self._process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        wait_for(self.name, lambda: answers(self._port), self._process)

    def version(self) -> str:
        return importlib.metadata.version("aiosmtpd")

    def target(self) -> Target:
        return Target(self._port)
