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
import shutil
import subprocess
import sys
from pathlib import Path

from benches.load import cpu
from benches.load.generator import Target
from benches.load.peers import Certificate, Unavailable
from benches.load.processes import ROOT, answers, end, free_port, wait_for

_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = loopback-only
inet_protocols = ipv4
myhostname = postfix.bench.invalid
mydestination = load.example
local_recipient_maps =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
smtpd_end_of_data_restrictions = check_client_access static:HOLD
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
message_size_limit = 26214400
"""

_PLAINTEXT = """\
smtpd_tls_security_level = none
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = permit_mynetworks, reject
"""

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

_MASTER = """\
127.0.0.1:{port} inet n - n - {processes} smtpd
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

# Where mail may lie; the folders stay.
_QUEUES = ("maildrop", "incoming", "active", "hold", "deferred", "defer", "corrupt", "bounce")


class Postfix:
    """Debian's Postfix, durable accept."""

    def __init__(self, folder: Path, *, tuned: bool = False, certificate: Certificate | None = None) -> None:
        self.name = "postfix tuned" if tuned else "postfix"
        self._tuned = tuned
        self._certificate = certificate
        self._folder = folder / self.name.replace(" ", "-")
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._auth: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if shutil.which("postfix") is None:
            raise Unavailable("Postfix is not installed: apt-get install --no-install-recommends postfix")
        if os.geteuid() != 0:
            raise Unavailable("Postfix needs root for its own users: run the bench as root to have it compared")
        configuration = self._folder / "etc"
        configuration.mkdir(parents=True)
        for name in ("queue", "data"):
            (self._folder / name).mkdir()
        shutil.chown(self._folder / "data", "postfix")
        for folder in (self._folder, *self._folder.parents[:1]):
            folder.chmod(0o755)
        main = _MAIN + self._encryption() + (_TUNED if self._tuned else "")
        (configuration / "main.cf").write_text(main.format(folder=self._folder))
        # "-": default_process_limit, 100 as Debian has it.
        processes = "500" if self._tuned else "-"
        (configuration / "master.cf").write_text(_MASTER.format(port=self._port, processes=processes))
        subprocess.run(["postfix", "-c", str(configuration), "check"], check=True, capture_output=True)
        daemons = Path(self._setting("daemon_directory"))
        # -d keeps it in the foreground, as a child of ours; -c is its configuration.
        command = [str(daemons / "master"), "-c", str(configuration), "-d"]
        self._process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        wait_for(self.name, lambda: answers(self._port), self._process)

    def _encryption(self) -> str:
        """Settings for it; with a certificate, whom smtpd asks is started too."""
        if self._certificate is None:
            return _PLAINTEXT
        files, auth_socket = self._certificate, self._folder / "auth"
        command = [sys.executable, "-m", "benches.load.auth_for_postfix", str(auth_socket)]
        self._auth = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        wait_for("Postfix's authentication", auth_socket.exists, self._auth)
        return _TLS.format(auth_socket=auth_socket, key_file=files.key_file, certificate_file=files.certificate_file)

    def _setting(self, name: str) -> str:
        command = ["postconf", "-h", name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def version(self) -> str:
        return self._setting("mail_version")

    def target(self) -> Target:
        return Target(self._port) if self._certificate is None else self._certificate.target(self._port)

    def groups(self) -> cpu.Groups:
        assert self._process is not None
        return {"server": [self._process.pid]}

    def clean(self) -> None:
        for queue in _QUEUES:
            folder = self._folder / "queue" / queue
            if folder.is_dir():
                for entry in os.scandir(folder):
                    if entry.is_file(follow_symlinks=False):
                        os.unlink(entry.path)  # noqa: PTH108 - thousands of them

    def stored(self) -> int:
        """Messages in its queue: what it said it stored."""
        return sum(1 for _ in (self._folder / "queue/hold").iterdir())

    def stop(self) -> None:
        for process in (self._process, self._auth):
            if process is not None:
                end(process)
