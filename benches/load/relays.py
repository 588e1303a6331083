"""The whole way, accepted durably and delivered: Postfix as a relay, and the sink that both deliver to.

The sink is Postfix's own smtp-sink, which throws away what it gets; its CPU is charged to nobody. To be fair, Postfix
is asked for what ours does and no more: one relayhost by its address, no DNS, no TLS towards it, no HOLD. "Tuned" is as
in `postfix`, with as many connections to the sink as ours may have.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from benches.load.peers import Unavailable
from benches.load.postfix import Postfix
from benches.load.processes import answers, end, free_port, wait_for

_RELAYING = """\
mydestination =
smtpd_end_of_data_restrictions =
relayhost = [127.0.0.1]:{port}
disable_dns_lookups = yes
smtp_tls_security_level = none
"""
_CONNECTIONS = "default_destination_concurrency_limit = {0}\ninitial_destination_concurrency = {0}\n"
_DELIVERING = "smtp unix - - n - - smtp\nrelay unix - - n - - smtp\n"
_BACKLOG = "1024"


class Sink:
    """smtp-sink: pipelining, 8BITMIME, every message taken."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Raises Unavailable."""
        command = shutil.which("smtp-sink") or shutil.which("smtp-sink", path="/usr/sbin")
        if command is None:
            raise Unavailable("smtp-sink is not installed: apt-get install --no-install-recommends postfix")
        # As root it insists on being somebody else.
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        arguments = [command, "-4", *user, "-m", "1000", f"127.0.0.1:{self.port}", _BACKLOG]
        self._process = subprocess.Popen(arguments, start_new_session=True, stderr=subprocess.DEVNULL)
        wait_for("smtp-sink", lambda: answers(self.port), self._process)

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)


class PostfixRelay(Postfix):
    """Takes mail and delivers it to the sink."""

    def __init__(self, folder: Path, sink: Sink, *, tuned: bool = False, connections: int = 48) -> None:
        super().__init__(folder, tuned=tuned)
        self._settings = _RELAYING.format(port=sink.port) + (_CONNECTIONS.format(connections) if tuned else "")

    def _encryption(self) -> str:
        return super()._encryption() + self._settings

    def _configured(self) -> None:
        with (self._instance.folder / "etc/master.cf").open("a") as master:
            master.write(_DELIVERING)

    def left(self) -> int:
        """Messages in its queue, deferred ones included."""
        queue = self._instance.folder / "queue"
        names = ("maildrop", "incoming", "active", "deferred")
        return sum(1 for name in names for entry in (queue / name).rglob("*") if entry.is_file())


def until_empty(relay: object, timeout_seconds: float, pause_seconds: float = 0.1) -> bool:
    """Wait for its queue to be empty; False: it is not."""
    finish = time.monotonic() + timeout_seconds
    while relay.left():  # type: ignore[attr-defined]
        if time.monotonic() > finish:
            return False
        time.sleep(pause_seconds)
    return True
