"""`python -m benches.load.idle`: what a session that says nothing costs, and what 10,000 of them do to the busy ones.

Bytes of resident memory for each session after EHLO, in plaintext and after a TLS handshake, beside peers; then 200
connections at full rate with and without 10,000 idle ones, in turn. Idle clients have a process of their own.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benches.load import generator, machine, resident, runner
from benches.load.generator import Load, Target
from benches.load.held import allow_files, holding
from benches.load.measure import Measurement, Row, under_load
from benches.load.ours import Ours
from benches.load.peers import Peer
from benches.load.runner import Bench
from benches.load.smtp_server import SmtpServer
from benches.load.summary import Check, Round, Verdict, ratio, speed

_HELD = 10_000
_PEER_HELD = 2_000  # each costs about the same
_WARM = 100
_ROUNDS = 3
_BUSY = 200
_SETTLE_SECONDS = 2.0
_ALONE, _BESIDE = f"ours durable {_BUSY}", f"ours durable {_BUSY} beside idle sessions"
_METHOD = (
    f"{machine.METHOD}; memory: proportional set size of the server's process, so without what the kernel keeps for a "
    f"socket; a server just started, {_WARM} sessions held and left, then the difference that the idle ones make, "
    "once for each: memory does not drift as time does"
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = runner.parser("load.idle", __doc__)
    parser.add_argument("--held", type=int, default=_HELD)
    options = parser.parse_args(arguments)
    if options.rounds < _ROUNDS and not options.quick:
        parser.error(f"--rounds: fewer than {_ROUNDS} show nothing")
    allow_files(options.held)
    generator.build()
    with runner.bench("idle", options) as bench:
        ours = bench.ours(Ours.accepting(bench.folder))
        about = bench.about(_METHOD)
        seen = dict(_memory(bench, ours, options.held))
        lost: list[int] = []
        rounds = bench.in_turn(list(_rows(bench.seconds, ours, options.held, lost)))
        seen |= {"beside idle ones, share of those without": _by_round(rounds), "idle ones": {"lost": sum(lost)}}
        verdicts = [
            _verdict("plaintext, idle: KiB each", seen["ours, plaintext"], 6),
            _verdict("TLS, idle: KiB each", seen["ours, TLS"], 32),
            Verdict.of(Check(f"messages/s of {_BUSY} beside {options.held:,} idle ones, share of those without",
                             ratio(_BESIDE, _ALONE, speed), 0.9), rounds),
            Verdict.of(Check("idle ones lost meanwhile", lambda _: sum(lost), 0, at_least=False), [{}]),
        ]  # fmt: skip
        bench.finish(about, verdicts, seen=seen, **runner.parts(rounds))
    return 0


def _memory(bench: Bench, ours: Ours, held: int) -> Iterator[tuple[str, dict[str, Any]]]:
    certificate = ours.certificate()
    fewer = min(_PEER_HELD, held)
    yield "ours, plaintext", _cost(ours, ours.target(), held)
    # What the plaintext sessions left behind would be used again: a server of its own.
    fresh = Ours.accepting(bench.folder / "tls")
    bench.ours(fresh)
    yield "ours, TLS", _cost(fresh, fresh.implicit_target(), held, fresh.certificate().ca_file)
    fresh.stop()
    for peer in bench.peers(SmtpServer(bench.folder)):
        yield f"{peer.name}, plaintext", _cost(peer, peer.target(), fewer)
        peer.stop()
    for peer in bench.peers(SmtpServer(bench.folder / "tls", certificate)):
        yield f"{peer.name}, TLS", _cost(peer, peer.target(), fewer, certificate.ca_file)
        peer.stop()


def _cost(peer: Peer, target: Target, held: int, ca_file: Path | None = None) -> dict[str, Any]:
    """Resident memory of the server before and with the sessions."""
    pids = list(peer.groups()["server"])
    with holding(_WARM, target.port, ca_file):
        pass
    time.sleep(_SETTLE_SECONDS)
    before = resident.used_bytes(pids)
    with holding(held, target.port, ca_file):
        time.sleep(_SETTLE_SECONDS)
        used = resident.used_bytes(pids)
    return {
        "sessions": held,
        "before_mib": before / 2**20,
        "with_them_mib": used / 2**20,
        "kib_each": (used - before) / held / 1024,
    }


def _by_round(rounds: Sequence[Round]) -> dict[str, Any]:
    shares = [ratio(_BESIDE, _ALONE, speed)(measured) for measured in rounds if {_BESIDE, _ALONE} <= measured.keys()]
    each = {f"round {number}": share for number, share in enumerate(shares, 1)}
    return each | ({"median": statistics.median(shares)} if shares else {})


def _rows(seconds: float, ours: Ours, held: int, lost: list[int]) -> Iterator[Row]:
    alone = under_load(_ALONE, ours, ours.target, Load(_BUSY, seconds))
    beside = under_load(_BESIDE, ours, ours.target, Load(_BUSY, seconds))

    def measure() -> Measurement:
        with holding(held, ours.target().port) as idle:
            measured = beside.measure()
            lost.append(held - idle.alive())
        return measured

    yield alone
    yield Row(_BESIDE, measure, beside.clean)


def _verdict(figure: str, seen: dict[str, Any], wanted: float) -> Verdict:
    return Verdict.of(Check(figure, lambda _: float(seen["kib_each"]), wanted, at_least=False, unit="KiB"), [{}])


if __name__ == "__main__":
    sys.exit(main())
