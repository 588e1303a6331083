"""nodemailer's smtp-server, the fastest peer seen: Node, handlers that keep nothing, a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benches.load.generator import Target
from benches.load.peers import Certificate, OneProcess, Unavailable
from benches.load.processes import answers, free_port, wait_for

# It pins what it depends on itself.
_VERSION = "3.21.6"
_SCRIPT = Path(__file__).with_name("smtp_server.js")


class SmtpServer(OneProcess):
    """Installed from npm into the bench's folder, never into the tree."""

    name = "smtp-server"

    def __init__(self, folder: Path, certificate: Certificate | None = None) -> None:
        super().__init__()
        self._folder = folder / "smtp-server"
        self._certificate = certificate
        self._port = free_port()

    def start(self) -> None:
        for program in ("node", "npm"):
            if shutil.which(program) is None:
                raise Unavailable(f"{program} is not installed: apt-get install nodejs npm")
        self._install()
        files = [] if self._certificate is None else [self._certificate.certificate_file, self._certificate.key_file]
        command = ["node", str(_SCRIPT), str(self._port), *map(str, files)]
        modules = {"NODE_PATH": str(self._folder / "node_modules"), "NODE_ENV": "production"}
        self._process = subprocess.Popen(command, env={**os.environ, **modules}, start_new_session=True)
        wait_for(self.name, lambda: answers(self._port), self._process)

    def _install(self) -> None:
        self._folder.mkdir(parents=True)
        package = f"smtp-server@{_VERSION}"
        command = [
            "npm",
            "install",
            "--prefix",
            str(self._folder),
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            package,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"npm could not install {package}: {done.stderr.strip().splitlines()[-1:]}")

    def version(self) -> str:
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        return f"{_VERSION} (Node {node})"

    def target(self) -> Target:
        return Target(self._port) if self._certificate is None else self._certificate.target(self._port)
