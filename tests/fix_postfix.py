"""A real Postfix as the next hop, in a temporary folder (`postfix_instance`).

It reads line ends as it did before CVE-2023-51764 was known (`smtpd_forbid_bare_newline = no`), logs nowhere, and puts
all mail on hold, where it can be counted. Import the fixture: `from fix_postfix import postfix`.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fix_postgres import free_port
from postfix_instance import PLAINTEXT, Instance, obstacle

_NAIVE = """\
smtpd_forbid_bare_newline = no
in_flow_delay = 0
"""
_STARTED_SECONDS = 15.0


class Postfix(Instance):
    def messages(self) -> list[bytes]:
        """Each message with its envelope, as Postfix's own tool prints it."""
        command = ["postcat", "-c", str(self.folder / "etc")]
        held = sorted(self.held.iterdir())
        return [subprocess.run([*command, str(file)], check=True, capture_output=True).stdout for file in held]


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as probe:
            return probe.recv(3) == b"220"
    except OSError:
        return False


@pytest.fixture
def postfix() -> Iterator[Postfix]:
    if why := obstacle():
        pytest.skip(why)
    # Not tmp_path: pytest keeps its folders closed to other users.
    with tempfile.TemporaryDirectory(prefix="postfix-") as name:
        found = Postfix(Path(name), free_port())
        found.configure("rcpt.example", PLAINTEXT, _NAIVE, processes="20")
        with _running(found):
            yield found


@contextlib.contextmanager
def _running(postfix: Postfix) -> Iterator[None]:
    process = postfix.start()
    try:
        deadline = time.monotonic() + _STARTED_SECONDS
        while not _answers(postfix.port):
            assert process.poll() is None, "Postfix ended"
            assert time.monotonic() < deadline, "Postfix does not answer"
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)
