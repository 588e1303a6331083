"""A Postfix of one's own in a folder: configured and started; the machine's is neither read nor touched.

It listens on loopback, takes mail for one domain, puts it all on hold, where it can be counted, and looks nothing up.
What more it is to do is for the caller to add. `fix_postfix` tests with it, `benches.load.postfix` measures it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = loopback-only
inet_protocols = ipv4
myhostname = postfix.test.invalid
mydestination = {domain}
local_recipient_maps =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
smtpd_end_of_data_restrictions = check_client_access static:HOLD
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
"""

# In the clear, from this machine.
PLAINTEXT = """\
smtpd_tls_security_level = none
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = permit_mynetworks, reject
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


def obstacle() -> str | None:
    """Why it cannot be started here, and what would help."""
    if shutil.which("postfix") is None or "postfix" not in {user.pw_name for user in pwd.getpwall()}:
        return "Postfix is not installed: apt-get install --no-install-recommends postfix"
    if os.geteuid() != 0:
        return "Postfix needs root for its own users"
    return None


@dataclass(frozen=True)
class Instance:
    """`folder` must be one that Postfix's users get into."""

    folder: Path
    port: int

    def configure(self, domain: str, *settings: str, processes: str = "-") -> None:
        """Write its configuration: main.cf with more `settings`, and so many smtpd ("-": default_process_limit)."""
        for name in ("etc", "queue", "data"):
            (self.folder / name).mkdir(parents=True)
        shutil.chown(self.folder / "data", "postfix")
        self.folder.chmod(0o755)  # its users must get there
        main = _MAIN.format(folder=self.folder, domain=domain) + "".join(settings)
        (self.folder / "etc/main.cf").write_text(main)
        (self.folder / "etc/master.cf").write_text(_MASTER.format(port=self.port, processes=processes))
        subprocess.run(["postfix", "-c", str(self.folder / "etc"), "check"], check=True, capture_output=True)

    def start(self) -> subprocess.Popen[bytes]:
        """Start it in the foreground, as a child of ours and the leader of a process group; it may not answer yet."""
        command = [f"{self.setting('daemon_directory')}/master", "-c", str(self.folder / "etc"), "-d"]
        return subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)

    def setting(self, name: str) -> str:
        """What `postconf` says of it."""
        command = ["postconf", "-c", str(self.folder / "etc"), "-h", name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    @property
    def held(self) -> Path:
        """The folder with one file for each message that it took."""
        return self.folder / "queue/hold"
