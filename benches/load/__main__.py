"""`python -m benches.load`: accepting, durably and not, beside peers and limit; see benches/README.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benches.load import end_to_end, generator, runner
from benches.load.generator import Load
from benches.load.measure import Limit, Row, under_load, without_smtp
from benches.load.ours import Ours
from benches.load.peers import Aiosmtpd, Peer
from benches.load.postfix import Postfix
from benches.load.smtp_server import SmtpServer
from benches.load.summary import Check, Verdict, core_cost, cost, fastest, ratio, speed

_IDLE_PER_SECOND = 20.0
_COMMITTERS = 2  # as the setting ingress_committers
_LARGE_BYTES = 64 * 1024
_LARGE_CONNECTIONS = 50


@dataclass(frozen=True)
class Servers:
    """What runs; a peer that can not run here is missing."""

    durable: Ours
    discarding: Ours
    storing: Sequence[Peer]  # durable, as ours is
    keeping_nothing: Sequence[Peer]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    command = generator.build()
    with runner.bench("load", options) as bench:
        servers = Servers(
            bench.ours(Ours.accepting(bench.folder)),
            bench.ours(Ours.discarding(bench.folder)),
            bench.peers(Postfix(bench.folder), Postfix(bench.folder, tuned=True)),
            bench.peers(Aiosmtpd(), SmtpServer(bench.folder)),
        )
        about = bench.about()
        rounds = bench.in_turn(list(_rows(bench.seconds, options, servers)))
        size = end_to_end.Size(5, 2_000) if options.quick else end_to_end.Size(30, 10_000)
        whole = {} if options.no_end_to_end else end_to_end.measure(command, bench.folder, servers.discarding, size)
        verdicts = [Verdict.of(check, rounds) for check in _checks(options.connections)] + [_queue_verdict(whole)]
        bench.finish(about, verdicts, seen=whole, **runner.parts(rounds))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = runner.parser("load", __doc__)
    parser.add_argument("--connections", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--pipelining", action="store_true", help="where a server offers it; most clients do not")
    parser.add_argument("--no-end-to-end", action="store_true")
    return parser.parse_args(arguments)


def _rows(seconds: float, options: argparse.Namespace, servers: Servers) -> Iterator[Row]:
    """Ours and its rivals next to each other, so that the machine is the same for both."""
    durable, discarding = servers.durable, servers.discarding
    extra = ("--pipelining",) if options.pipelining else ()
    for connections in options.connections:
        load = Load(connections, seconds, options=extra)
        for peer in (durable, *servers.storing):
            yield under_load(f"{peer.name} {connections}", peer, peer.target, load)
        name = f"limit {connections}"
        yield without_smtp(name, durable, Limit(connections, _COMMITTERS, seconds))
        # With C committers and N clients that wait for their answers, no more than N/C can be in each batch.
        yield without_smtp(
            f"{name}, as many in flight", durable, Limit(connections // _COMMITTERS, _COMMITTERS, seconds)
        )
        for peer in (discarding, *servers.keeping_nothing):
            yield under_load(f"{peer.name} {connections}", peer, peer.target, load)
    load = Load(_LARGE_CONNECTIONS, seconds, size_bytes=_LARGE_BYTES, options=extra)
    for peer in (durable, *servers.storing):
        yield under_load(f"{peer.name} 64 KiB", peer, peer.target, load)
    idle = Load(1, seconds, rate=_IDLE_PER_SECOND)
    yield under_load("ours idle", durable, durable.target, idle)
    yield without_smtp("limit idle", durable, Limit(1, 1, seconds, batches_per_second=_IDLE_PER_SECOND))


def _checks(connections: Sequence[int]) -> Iterator[Check]:
    for n in connections:
        ours = f"ours durable {n}"
        for peer in ("postfix", "postfix tuned"):
            yield Check(f"durable at {n}: messages/s, times {peer}", ratio(ours, f"{peer} {n}", speed), 8)
            yield Check(
                f"durable at {n}: messages per CPU-second, Postgres included, times {peer}",
                ratio(f"{peer} {n}", ours, cost), 20,
            )  # fmt: skip
        yield Check(f"durable at {n}: share of the COPY limit", ratio(ours, f"limit {n}", speed), 0.9)
        yield Check(f"durable at {n}: share of the limit with as many in flight",
                    ratio(ours, f"limit {n}, as many in flight", speed), 0.9)  # fmt: skip
        yield from _accept_only(n)
    for peer in ("postfix", "postfix tuned"):
        yield Check(f"64 KiB: messages/s, times {peer}", ratio("ours durable 64 KiB", f"{peer} 64 KiB", speed), 4)
    yield Check("server without Postgres at 50, CPU-s per 1,000", core_cost("ours durable 50"), 0.07, at_least=False)
    yield Check("idle: final dot to 250 beyond one commit, ms",
                lambda seen: seen["ours idle"].p50_ms - seen["limit idle"].p50_ms, 2, at_least=False,
                unit="ms")  # fmt: skip


def _accept_only(n: int) -> Iterator[Check]:
    peers = [f"{name} {n}" for name in (Aiosmtpd.name, SmtpServer.name)]
    ours = f"ours accept-only {n}"
    yield Check(f"accept-only at {n}: messages/s, times the fastest peer",
                lambda seen: speed(seen[ours]) / fastest(peers, speed)(seen), 1.5)  # fmt: skip
    yield Check(f"accept-only at {n}: CPU of the server, share of the fastest peer's",
                lambda seen: cost(seen[ours]) / fastest(peers, cost)(seen), 1 / 3, at_least=False)  # fmt: skip


def _queue_verdict(whole: dict[str, dict[str, Any]]) -> Verdict:
    check = Check(
        "queue latency p99 at 170 msg/s, ms",
        lambda _: float(whole["queue latency to the built-in sink"]["queue_p99_ms"]),
        1000,
        at_least=False,
    )
    return Verdict.of(check, [{}])


if __name__ == "__main__":
    sys.exit(main())
