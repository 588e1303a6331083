"""`python -m benches.load.tls`: implicit TLS 1.3 and AUTH, a new connection per message and 100 messages on each.

Beside Postfix and smtp-server with the same certificate (ECDSA P-256) and login, and beside what rustls alone does on
this machine, in three ways: under the same load, by a server that answers without looking (benches/micro/canned.rs),
which is what the bare handshakes allow where the client works on the same cores; handshakes over loopback with no SMTP;
and in memory (benches/micro/handshakes.rs). No client resumes a session: all handshakes are full.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from benches.load import generator, machine, runner
from benches.load.canned import Canned
from benches.load.generator import Load
from benches.load.measure import Measurement, Row, under_load
from benches.load.ours import Ours
from benches.load.peers import Certificate, Peer
from benches.load.postfix import Postfix
from benches.load.processes import ROOT
from benches.load.smtp_server import SmtpServer
from benches.load.summary import Check, Round, Verdict, cost, fastest, ratio, speed

_CONNECTIONS = 50
_METHOD = (
    f"{machine.METHOD}; implicit TLS 1.3, AUTH PLAIN, {_CONNECTIONS} connections at once, no session resumption; "
    "Postfix and smtp-server take any password (Postfix asks a process that is not charged); "
    "smtp-server waits 100 ms before it greets; handshakes alone: client and server in one process, "
    "the server with as many threads as ours, CPU of both ends"
)
_THREADS = max(1, len(os.sched_getaffinity(0)) - 1)  # as the setting smtp_threads
_MEMORY = "handshakes in memory"
_OURS, _DISCARDING, _BARE, _PACED = "ours", "ours accept-only", "handshakes alone", "ours, 200 new connections/s"
_POSTFIX, _TUNED, _NODE = "postfix", "postfix tuned", SmtpServer.name
_EACH, _HUNDRED = "new connection each", "100 on each"


def main(arguments: Sequence[str] | None = None) -> int:
    options = runner.parser("load.tls", __doc__).parse_args(arguments)
    generator.build()
    _build_handshakes()
    with runner.bench("tls", options) as bench:
        ours = bench.ours(Ours.accepting(bench.folder))
        certificate = ours.certificate()
        peers = bench.peers(
            Postfix(bench.folder, certificate=certificate),
            Postfix(bench.folder, tuned=True, certificate=certificate),
            SmtpServer(bench.folder, certificate),
            Canned(certificate, _THREADS),
        )
        discarding = bench.ours(Ours.discarding(bench.folder))
        about = bench.about(_METHOD)
        rounds = bench.in_turn(list(_rows(bench.seconds, ours, discarding, peers)))
        bench.finish(about, [Verdict.of(check, rounds) for check in _checks()], **runner.parts(rounds))
    return 0


def _rows(seconds: float, ours: Ours, discarding: Ours, peers: Sequence[Peer]) -> Iterator[Row]:
    each = Load(_CONNECTIONS, seconds, messages_per_connection=1)
    for load, name in ((each, _EACH), (replace(each, messages_per_connection=100), _HUNDRED)):
        yield under_load(f"{_OURS}, {name}", ours, ours.implicit_target, load)
        yield under_load(f"{_DISCARDING}, {name}", discarding, discarding.implicit_target, load)
        if load is each:
            yield Row(_BARE, partial(_loopback, ours.certificate(), seconds), lambda: None)
            yield Row(_MEMORY, partial(_memory, ours.certificate(), seconds), lambda: None)
        for peer in peers:
            yield under_load(f"{peer.name}, {name}", peer, peer.target, load)
    yield under_load(_PACED, ours, ours.implicit_target, replace(each, rate=200.0))


def _build_handshakes() -> None:
    command = ["cargo", "build", "--quiet", "--release", "-p", "smtp-proxy-client-engine", "--examples"]
    subprocess.run(command, cwd=ROOT, check=True)


def _loopback(certificate: Certificate, seconds: float) -> Measurement:
    seen = _handshakes("loopback", certificate, seconds)
    each = seen["cpu_seconds"] * 1000 / max(1, seen["total"])
    row = _alone(_BARE, seen["per_second"], {"both ends": each, "total": each})
    errors = {"handshake": int(seen["failed"])} if seen["failed"] else {}
    return replace(row, handshake_p50_ms=seen["p50_ms"], handshake_p99_ms=seen["p99_ms"], errors=errors)


def _memory(certificate: Certificate, seconds: float) -> Measurement:
    """As many as one core does for the server; CPU seconds per 1,000 are milliseconds each."""
    seen = _handshakes("memory", certificate, seconds)
    server, client = seen["server_cpu_us"], seen["client_cpu_us"]
    cost = {"server": server / 1000, "client": client / 1000, "total": server / 1000}
    return _alone(_MEMORY, 1e6 / max(server, 1e-9), cost)


def _handshakes(kind: str, certificate: Certificate, seconds: float) -> dict[str, float]:
    numbers = map(str, (_CONNECTIONS, _THREADS, seconds))
    files = map(str, (certificate.certificate_file, certificate.key_file, certificate.ca_file))
    command = [str(ROOT / "target/release/examples/handshakes"), kind, *numbers, *files]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    seen: dict[str, float] = json.loads(done.stdout)
    return seen


def _alone(name: str, per_second: float, cost_per_1000: dict[str, float]) -> Measurement:
    """A row without messages."""
    return Measurement(
        row=name,
        messages_per_second=per_second,
        cpu_seconds_per_1000=cost_per_1000,
        p50_ms=0.0,
        p99_ms=0.0,
        transaction_p50_ms=0.0,
        transaction_p99_ms=0.0,
        handshake_p50_ms=0.0,
        handshake_p99_ms=0.0,
        generator_cpu_us=0.0,
        errors={},
        kept=None,
        accepted=0,
    )


def _checks() -> Iterator[Check]:
    ours = f"{_OURS}, {_EACH}"
    for peer in (_POSTFIX, _TUNED):
        yield Check(f"{_EACH}: messages/s, times {peer}", ratio(ours, f"{peer}, {_EACH}", speed), 4)
        yield Check(
            f"{_EACH}: CPU, share of that of {peer}", ratio(ours, f"{peer}, {_EACH}", cost), 1 / 8, at_least=False
        )
    for row in (_OURS, _DISCARDING):
        yield Check(f"{row}, {_EACH}: share of {Canned.name}",
                    ratio(f"{row}, {_EACH}", f"{Canned.name}, {_EACH}", speed), 0.85)  # fmt: skip
    yield Check(f"{_EACH}: share of handshakes alone, whose client sends no mail", ratio(ours, _BARE, speed), 0.85)
    rivals = [f"{peer}, {_HUNDRED}" for peer in (_POSTFIX, _TUNED, _NODE)]
    for row in (_OURS, _DISCARDING):
        yield Check(f"{row}, {_HUNDRED}: messages/s, times the fastest peer",
                    partial(_beside_the_fastest, f"{row}, {_HUNDRED}", rivals), 1.5)  # fmt: skip
    yield Check("handshake p99 at 200 new connections/s, ms", lambda seen: seen[_PACED].handshake_p99_ms, 100,
                at_least=False, unit="ms")  # fmt: skip


def _beside_the_fastest(row: str, rivals: Sequence[str], seen: Round) -> float:
    return speed(seen[row]) / fastest(rivals, speed)(seen)


if __name__ == "__main__":
    sys.exit(main())
