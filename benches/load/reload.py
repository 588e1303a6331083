"""`python -m benches.load.reload`: 50 certificate reloads under a load of handshakes, beside idle TLS sessions.

A new TLS connection with AUTH for every message, by the load engine, while some thousand sessions stand idle under TLS;
with and without reloads, in turn. Every fifth certificate is a bad one, which must be refused while the old one goes on
serving. After each reload a client looks which certificate is served. Ends with 1 if any session failed.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import ssl
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benches.load import generator, machine, runner
from benches.load.generator import Load
from benches.load.held import allow_files, holding
from benches.load.measure import Measurement, Row, under_load
from benches.load.ours import Ours
from benches.load.summary import Check, Round, Verdict, ratio, speed
from smtp_proxy.certs.selfsigned import ensure_server_certificate
from smtp_proxy.cli.control import ask
from smtp_proxy.errors import CertificateProblem

_CONNECTIONS = 50
_RELOADS = 50
_BAD_EACH = 5
_SECONDS = 15.0
_NAMES = ("localhost", "127.0.0.1")
_STEADY, _RELOADING = "without reloads", "with reloads"
_METHOD = (
    f"{machine.METHOD}; implicit TLS 1.3, AUTH PLAIN, {_CONNECTIONS} connections at once, each for one message, no "
    "session resumption; idle sessions under TLS from a process of their own, asked afterwards by NOOP; the reloads "
    "spread over the run, by the control socket, every fifth certificate with another one's key"
)


@dataclass
class Reloads:
    """What became of the reloads of all rounds."""

    seconds: list[float] = field(default_factory=list)  # of those that were to succeed
    refused: int = 0
    wrong: list[str] = field(default_factory=list)  # what should not have been


class Reloading:
    """New certificates in the place of those that a server was started with, and the order to read them."""

    def __init__(self, server: Ours, folder: Path) -> None:
        self._server = server
        self._serving = server.certificate()
        self._folder = folder
        folder.mkdir()
        for name in ("ca.pem", "ca-key.pem"):
            shutil.copy(self._serving.ca_file.parent / name, folder / name)
        self._tls = ssl.create_default_context(cafile=self._serving.ca_file)

    def run(self, count: int, seconds: float, reloads: Reloads) -> None:
        """So many, spread over so much time."""
        began = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, began + seconds * number / count - time.monotonic()))
            self._reload(reloads, good=number % _BAD_EACH != _BAD_EACH - 1)

    def _reload(self, reloads: Reloads, *, good: bool) -> None:
        before = self._served()
        made = self._make(good=good)
        began = time.monotonic()
        try:
            ask(self._server.control_socket(), "reload")
        except CertificateProblem as refusal:
            reloads.refused += 1
            if good:
                reloads.wrong.append(f"refused: {refusal}")
        else:
            reloads.seconds.append(time.monotonic() - began)
            if not good:
                reloads.wrong.append("a bad certificate was taken")
        if self._served() != (made if good else before):
            reloads.wrong.append("another certificate is served than should be")

    def _make(self, *, good: bool) -> bytes:
        """A pair in the server's place; a bad one has another one's key. Returns the certificate, DER."""
        pair = (self._folder / "server.pem", self._folder / "server-key.pem")
        for file in pair:
            file.unlink(missing_ok=True)
        files = ensure_server_certificate(self._folder, _NAMES)
        if good:
            shutil.copy(files.key_file, self._serving.key_file)
        shutil.copy(files.certificate_file, self._serving.certificate_file)
        first, _, _ = files.certificate_file.read_text().partition("-----END CERTIFICATE-----")
        return ssl.PEM_cert_to_DER_cert(f"{first}-----END CERTIFICATE-----\n")

    def _served(self) -> bytes | None:
        port = self._server.implicit_target().port
        with (
            socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
            self._tls.wrap_socket(plain, server_hostname="localhost") as session,
        ):
            return session.getpeercert(binary_form=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    allow_files(options.held)
    generator.build()
    with runner.bench("reload", options) as bench:
        server = bench.ours(Ours.accepting(bench.folder, "--set", "tls_watch_seconds=0"))
        about = bench.about(_METHOD)
        reloads, count = Reloads(), _RELOADS // 10 if options.quick else _RELOADS
        target = server.implicit_target()
        with holding(options.held, target.port, server.certificate().ca_file) as held:
            reloading = Reloading(server, bench.folder / "new")
            rounds = bench.in_turn(list(_rows(bench.seconds, count, server, reloading, reloads)))
            lost = held.count - held.alive()
        rows = [row for measured in rounds for row in measured.values()]
        failed = sum(sum(row.errors.values()) for row in rows)
        seen = {"the reloads": _seen(reloads), "the sessions": {"failed": failed, "idle": options.held, "lost": lost}}
        bench.finish(about, list(_verdicts(reloads, failed + lost, rounds)), seen=seen, **runner.parts(rounds))
    for wrong in dict.fromkeys(reloads.wrong):
        print(f"wrong: {wrong}", file=sys.stderr)
    return 1 if failed or lost or reloads.wrong else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = runner.parser("load.reload", __doc__)
    parser.set_defaults(seconds=_SECONDS, rounds=3)
    parser.add_argument("--held", type=int, default=2_000, help="idle sessions under TLS")
    return parser.parse_args(arguments)


def _rows(seconds: float, count: int, server: Ours, reloading: Reloading, reloads: Reloads) -> Iterator[Row]:
    load = Load(_CONNECTIONS, seconds, messages_per_connection=1)
    yield under_load(_STEADY, server, server.implicit_target, load)
    loaded = under_load(_RELOADING, server, server.implicit_target, load)

    def measure() -> Measurement:
        with ThreadPoolExecutor(1) as beside:
            done = beside.submit(reloading.run, count, seconds * 0.9, reloads)
            measured = loaded.measure()
            if not done.done():
                reloads.wrong.append("the load ended before the reloads")
            done.result()
        return measured

    yield Row(_RELOADING, measure, loaded.clean)


def _seen(reloads: Reloads) -> dict[str, Any]:
    return {
        "reloads": len(reloads.seconds),
        "refused": reloads.refused,
        "wrong": len(reloads.wrong),
        "median_ms": statistics.median(reloads.seconds) * 1000 if reloads.seconds else 0.0,
        "longest_ms": max(reloads.seconds, default=0.0) * 1000,
    }


def _verdicts(reloads: Reloads, failed: int, rounds: Sequence[Round]) -> Iterator[Verdict]:
    yield _at_most("sessions that failed or were lost", failed, 0)
    yield _at_most("reloads with another outcome than they should have", len(reloads.wrong), 0)
    yield _at_most("longest reload, ms", max(reloads.seconds, default=0.0) * 1000, 1000)
    figure = "handshakes/s with reloads, share of those without"
    yield Verdict.of(Check(figure, ratio(_RELOADING, _STEADY, speed), 0.9), rounds)


def _at_most(figure: str, value: float, wanted: float) -> Verdict:
    return Verdict.of(Check(figure, lambda _: value, wanted, at_least=False), [{}])


if __name__ == "__main__":
    sys.exit(main())
