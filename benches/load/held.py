"""Idle sessions, from a process of their own (hold.py): neither their memory nor their time is anybody else's."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benches.load.processes import ROOT

_SPARE_FILES = 1_000


class Held:
    """Sessions that stand. Made by `holding`."""

    def __init__(self, count: int, process: subprocess.Popen[bytes]) -> None:
        self.count = count
        self._process = process

    def alive(self) -> int:
        """How many answer NOOP with 250: they stand as they stood."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"count\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline() or 0)


@contextmanager
def holding(count: int, port: int, ca_file: Path | None = None) -> Iterator[Held]:
    """As many idle sessions, under TLS if a CA is given. Raises RuntimeError: the server did not take them."""
    command = [sys.executable, "-m", "benches.load.hold", str(count), str(port), *([str(ca_file)] if ca_file else [])]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{count} sessions could not be held")
        yield Held(count, process)
    finally:
        process.communicate()  # its standard input ends, so it does


def allow_files(held: int) -> None:
    """For the servers, which inherit it, and for the clients. Raises SystemExit: so many are not to be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = held + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        except ValueError:
            raise SystemExit(f"{wanted} open files are needed: ulimit -n {wanted}, or a smaller --held") from None
