"""Postfix as it accepts durably: smtpd takes the message, cleanup writes and fsyncs the queue file, then 250.

An instance of its own in a temporary folder; the machine's own Postfix is neither read nor touched. It is measured
twice: with the defaults that Debian gives it, and tuned. To be fair to both:
- nothing is delivered: all mail goes on HOLD, which spares the queue manager's work (`defer` instead costs it more);
- no limit on the connections of one client, no DNS for the name of its address, no recipient checks, no chroot;
- it logs to syslog; where none runs, as in a container, it saves that cost.
Tuned besides: enough smtpd processes for all connections, which live on; no rate limits; and `in_flow_delay = 0`, since
by default Postfix slows its input down when it outruns the queue manager.
With a certificate: implicit TLS and AUTH, by Dovecot's protocol, from a process that says yes to all; its CPU is not
charged.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benches.load.generator import Target
from benches.load.peers import Certificate, OneProcess, Unavailable
from benches.load.processes import ROOT, answers, end, free_port, wait_for

sys.path.insert(0, str(ROOT / "tests"))

from postfix_instance import PLAINTEXT, Instance, obstacle

_SIZE = "message_size_limit = 26214400\n"

_TLS = """\
smtpd_tls_wrappermode = yes
smtpd_tls_security_level = encrypt
smtpd_tls_chain_files = {key_file}, {certificate_file}
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {auth_socket}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
"""

_TUNED = """\
smtpd_client_connection_rate_limit = 0
smtpd_client_message_rate_limit = 0
smtpd_client_recipient_rate_limit = 0
smtpd_client_new_tls_session_rate_limit = 0
smtpd_client_auth_rate_limit = 0
default_process_limit = 500
max_use = 1000000
max_idle = 3600s
in_flow_delay = 0
"""

# Where mail may lie; the folders stay.
_QUEUES = ("maildrop", "incoming", "active", "hold", "deferred", "defer", "corrupt", "bounce")


class Postfix(OneProcess):
    """Debian's Postfix, durable accept."""

    def __init__(self, folder: Path, *, tuned: bool = False, certificate: Certificate | None = None) -> None:
        super().__init__()
        self.name = "postfix tuned" if tuned else "postfix"
        self._tuned = tuned
        self._certificate = certificate
        self._instance = Instance(folder / self.name.replace(" ", "-"), free_port())
        self._auth: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if why := obstacle():
            raise Unavailable(why)
        self._instance.folder.parent.chmod(0o755)  # Postfix's users must get through
        settings = [_SIZE, self._encryption(), _TUNED if self._tuned else ""]
        # "-": default_process_limit, 100 as Debian has it.
        self._instance.configure("load.example", *settings, processes="500" if self._tuned else "-")
        self._configured()
        self._process = self._instance.start()
        wait_for(self.name, lambda: answers(self._instance.port), self._process)

    def _configured(self) -> None:
        """For more in its master.cf, before it starts."""

    def _encryption(self) -> str:
        """Settings for it; with a certificate, whom smtpd asks is started too."""
        if self._certificate is None:
            return PLAINTEXT
        self._instance.folder.mkdir(parents=True)
        files, auth_socket = self._certificate, self._instance.folder / "auth"
        command = [sys.executable, "-m", "benches.load.auth_for_postfix", str(auth_socket)]
        self._auth = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        wait_for("Postfix's authentication", auth_socket.exists, self._auth)
        return _TLS.format(auth_socket=auth_socket, key_file=files.key_file, certificate_file=files.certificate_file)

    def version(self) -> str:
        return self._instance.setting("mail_version")

    def target(self) -> Target:
        port = self._instance.port
        return Target(port) if self._certificate is None else self._certificate.target(port)

    def clean(self) -> None:
        for queue in _QUEUES:
            folder = self._instance.folder / "queue" / queue
            if folder.is_dir():
                for entry in os.scandir(folder):
                    if entry.is_file(follow_symlinks=False):
                        os.unlink(entry.path)  # noqa: PTH108 - thousands of them

    def stored(self) -> int:
        """Messages in its queue: what it said it stored."""
        return sum(1 for _ in self._instance.held.iterdir())

    def stop(self) -> None:
        super().stop()
        if self._auth is not None:
            end(self._auth)
