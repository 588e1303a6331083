"""`python -m benches.load.whole`: accepted durably, queued and delivered to smtp-sink, beside Postfix doing the same.

- rate and CPU: so many messages as fast as they are accepted, until the queue is empty; ours and Postfix take turns;
- lasting: a share of our peak for minutes, as an open model, and what waits in the queue meanwhile;
- latency: from the commit to the first attempt at a steady rate;
- deferred: the worker's CPU for a message beside a million deferred ones, and beside none;
- backlog: how long new mail waits for its first attempt while a hundred thousand older messages are delivered.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benches.load import generator, machine, queues, runner
from benches.load.ours import Ours
from benches.load.peers import Unavailable
from benches.load.relays import PostfixRelay, Sink
from benches.load.summary import Check, Round, Verdict, cost, ratio, speed

_METHOD = (
    f"{machine.METHOD.partition('; accepting only')[0]}; end to end: N messages from 50 connections as fast as they "
    "are accepted, the clock stops when the queue is empty; delivered to smtp-sink in plaintext, whose CPU and the "
    "generator's are charged to nobody"
)
_PARTS = ("rate", "lasting", "latency", "deferred", "backlog")
_OURS = "ours delivering fast"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = runner.parser("load.whole", __doc__)
    parser.add_argument("--messages", type=int, default=6000, help="of each measurement of the rate")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=list(_PARTS))
    parser.add_argument("--minutes", type=float, default=5.0, help="of the lasting run")
    parser.add_argument("--deferred", type=int, default=1_000_000)
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE, a setting of smtp-proxy")
    options = parser.parse_args(arguments)
    if options.quick:
        options.messages, options.minutes, options.deferred, options.backlog = 1000, 0.1, 20_000, 3000
    generator.build()
    with runner.bench("e2e", options) as bench:
        sink = Sink()
        try:
            sink.start()
        except Unavailable as reason:
            bench.console.print(str(reason))
            return 1
        try:
            return _measured(bench, sink)
        finally:
            sink.stop()


def _measured(bench: runner.Bench, sink: Sink) -> int:
    options = bench.options
    settings = [word for setting in options.set for word in ("--set", setting)]
    ours = bench.ours(Ours.delivering(bench.folder, sink.port, *settings))
    rounds: list[Round] = []
    relays = ()
    if "rate" in options.parts:
        relays = bench.peers(PostfixRelay(bench.folder, sink), PostfixRelay(bench.folder, sink, tuned=True))
    about = bench.about(_METHOD)
    if "rate" in options.parts:
        rounds = bench.in_turn([queues.whole_way(relay, options.messages) for relay in (ours, *relays)])
    seen, verdicts = dict[str, dict[str, Any]](), [Verdict.of(check, rounds) for check in _checks() if rounds]
    for name, part in _parts(ours, options, rounds).items():
        if name in options.parts:
            seen[name], checks = part()
            bench.console.print(f"{name}: {seen[name]}")
            verdicts += [Verdict.of(check, [{}]) for check in checks]
    measured = runner.parts(rounds) if rounds else {}
    bench.finish(about, verdicts, seen=seen, **measured)
    return 0


def _checks() -> Iterator[Check]:
    for peer in ("postfix", "postfix tuned"):
        yield Check(f"end to end: messages/s, times {peer}", ratio(_OURS, peer, speed), 4)
        yield Check(f"end to end: messages per CPU-second, all included, times {peer}", ratio(peer, _OURS, cost), 6)


Part = Callable[[], tuple[dict[str, Any], list[Check]]]


def _parts(ours: Ours, options: Any, rounds: Sequence[Round]) -> dict[str, Part]:
    def lasting() -> tuple[dict[str, Any], list[Check]]:
        peak = statistics.median(speed(seen[_OURS]) for seen in rounds) if rounds else 1000.0
        seen = queues.lasting(ours, 0.8 * peak, 60 * options.minutes)
        return seen, [_at_most("at 80 % of the peak: growth of the queue, share of what came", seen, "growth", 0.001)]

    def latency() -> tuple[dict[str, Any], list[Check]]:
        seen = queues.latency(ours, 1000, 3 if options.quick else 30)
        return seen, [_at_most("commit to first attempt at 1,000 messages/s: p99, ms", seen, "p99_ms", 100)]

    def deferred() -> tuple[dict[str, Any], list[Check]]:
        seen = queues.beside_deferred(ours, options.deferred, options.messages, options.rounds)
        figure = f"worker's CPU a message beside {options.deferred:,} deferred, times that of an empty queue"
        return seen, [_at_most(figure, seen, "worker_ratio", 1.3)]

    def backlog() -> tuple[dict[str, Any], list[Check]]:
        seen = queues.beside_backlog(ours, options.backlog)
        figure = f"new mail while {options.backlog:,} are drained: commit to first attempt p99, ms"
        return seen, [_at_most(figure, seen, "p99_ms", 1000)]

    return {"lasting": lasting, "latency": latency, "deferred": deferred, "backlog": backlog}


def _at_most(figure: str, seen: dict[str, Any], key: str, most: float) -> Check:
    return Check(figure, lambda _: float(seen[key]), most, at_least=False)


if __name__ == "__main__":
    sys.exit(main())
