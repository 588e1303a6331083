"""A real Postfix as the next hop, in a temporary folder; the machine's own is neither read nor touched.

It reads line ends as it did before CVE-2023-51764 was known (`smtpd_forbid_bare_newline = no`), logs nowhere, and puts
all mail on hold, where it can be counted. Import the fixture: `from fix_postfix import postfix`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fix_postgres import free_port

_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = loopback-only
inet_protocols = ipv4
myhostname = postfix.test.invalid
mydestination = rcpt.example
local_recipient_maps =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_end_of_data_restrictions = check_client_access static:HOLD
smtpd_peername_lookup = no
smtpd_forbid_bare_newline = no
smtpd_tls_security_level = none
smtpd_client_connection_count_limit = 0
in_flow_delay = 0
"""
_MASTER = """\
127.0.0.1:{port} inet n - n - 20 smtpd
pickup  unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr    unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce  unix - - n - 0 bounce
defer   unix - - n - 0 bounce
trace   unix - - n - 0 bounce
verify  unix - - n - 1 verify
flush   unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
tlsmgr  unix - - n 1000? 1 tlsmgr
error   unix - - n - - error
retry   unix - - n - - error
showq   unix n - n - - showq
anvil   unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""
_STARTED_SECONDS = 15.0


@dataclass
class Postfix:
    folder: Path
    port: int

    def messages(self) -> list[bytes]:
        """Each message with its envelope, as Postfix's own tool prints it."""
        command = ["postcat", "-c", str(self.folder / "etc")]
        held = sorted((self.folder / "queue/hold").iterdir())
        return [subprocess.run([*command, str(file)], check=True, capture_output=True).stdout for file in held]


def _configure(folder: Path, port: int) -> None:
    for name in ("etc", "queue", "data"):
        (folder / name).mkdir()
    shutil.chown(folder / "data", "postfix")
    folder.chmod(0o755)  # its users must get there
    (folder / "etc/main.cf").write_text(_MAIN.format(folder=folder))
    (folder / "etc/master.cf").write_text(_MASTER.format(port=port))
    subprocess.run(["postfix", "-c", str(folder / "etc"), "check"], check=True, capture_output=True)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as probe:
            return probe.recv(3) == b"220"
    except OSError:
        return False


@pytest.fixture
def postfix() -> Iterator[Postfix]:
    if shutil.which("postfix") is None or "postfix" not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip("Postfix is not installed: apt-get install --no-install-recommends postfix")
    if os.geteuid() != 0:
        pytest.skip("Postfix needs root for its own users")
    # Not tmp_path: pytest keeps its folders closed to other users.
    with tempfile.TemporaryDirectory(prefix="postfix-") as name:
        found = Postfix(Path(name), free_port())
        _configure(found.folder, found.port)
        with _running(found):
            yield found


@contextlib.contextmanager
def _running(postfix: Postfix) -> Iterator[None]:
    ask = ["postconf", "-c", str(postfix.folder / "etc"), "-h", "daemon_directory"]
    daemons = subprocess.run(ask, check=True, capture_output=True, text=True)
    # -d keeps it in the foreground, as a child of ours.
    command = [f"{daemons.stdout.strip()}/master", "-c", str(postfix.folder / "etc"), "-d"]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
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
