"""The least that an SMTP server on rustls can do (benches/micro/canned.rs): what the bare handshakes allow here."""

from __future__ import annotations

import subprocess

from benches.load.generator import Target
from benches.load.peers import Certificate, OneProcess
from benches.load.processes import ROOT, answers, free_port, wait_for


class Canned(OneProcess):
    """Bare rustls and tokio with as many threads as ours; every command is answered with what is always answered."""

    name = "bare rustls"

    def __init__(self, certificate: Certificate, threads: int) -> None:
        super().__init__()
        self._certificate = certificate
        self._threads = threads
        self._port = free_port()

    def start(self) -> None:
        files = (self._certificate.certificate_file, self._certificate.key_file)
        program = ROOT / "target/release/examples/canned"
        command = [str(program), str(self._port), str(self._threads), *map(str, files)]
        self._process = subprocess.Popen(command, start_new_session=True)
        wait_for(self.name, lambda: answers(self._port), self._process)

    def version(self) -> str:
        return "as in Cargo.lock"

    def target(self) -> Target:
        return self._certificate.target(self._port)
