"""`python -m benches.load.scaled`: `smtp-proxy simulate` beside a small real run with scripted scaling.

One worker's capacity is measured first: its concurrency is small and the next hop is slow, so that it is known, and far
below what this machine can do. Then mail comes faster than one worker delivers. The simulation, given that capacity,
says when there are how many workers (1, 3, 1); real ones are started and ended by that script, and what waits is
counted every second. What is compared: how high the backlog grew, and when it was gone again.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Self

from benches.load import generator, replay, runner
from benches.load.generator import Load
from benches.load.ours import Ours
from benches.load.processes import answers, end, free_port, wait_for
from benches.load.relays import until_empty
from benches.load.replay import Run, Shape
from benches.load.summary import Check, Verdict
from benches.load.workers import Workers
from smtp_proxy.planning.simulation import Result

_METHOD = (
    "embedded Postgres and Valkey, real SMTP and workers, a sink that answers the final dot 0.1 s late; one worker's "
    "capacity by draining a backlog; then an open model above it, workers started and ended when the simulation has "
    "them, the backlog (queued and under way) counted in Postgres every second"
)
_SINK_SECONDS = 0.1
_CONCURRENCY = 4
_WITHIN = 0.25
_LOOK_SECONDS = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = runner.parser("load.scaled", __doc__)
    parser.add_argument("--high-seconds", type=int, default=56, help="for which more comes than one worker delivers")
    parser.add_argument("--total-seconds", type=int, default=152)
    options = parser.parse_args(arguments)
    generator.build()
    with runner.bench("scaling", options) as bench:
        port = free_port()
        with _SlowSink(port):
            return _measured(bench, port)


class _SlowSink:
    """The slow next hop, a process of its own."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benches.load.slow_sink", str(self._port), str(_SINK_SECONDS)]
        self._process = subprocess.Popen(command, start_new_session=True)
        wait_for("the slow sink", lambda: answers(self._port), self._process)
        return self

    def __exit__(self, *_: object) -> None:
        end(self._process)


def _measured(bench: runner.Bench, port: int) -> int:
    options = bench.options
    own = ("--plaintext-port", "0", "--without", "worker,sink,api")
    ours = bench.ours(Ours("ours scaled", bench.folder, own))
    settings = {
        "SMARTHOST_HOST": "127.0.0.1",
        "SMARTHOST_PORT": str(port),
        "SMARTHOST_TLS": "none",
        "WORKER_CONCURRENCY": str(_CONCURRENCY),
    }
    workers = Workers(ours, bench.folder, settings)
    about = bench.about(_METHOD)
    try:
        capacity = _capacity(ours, workers, 100 if options.quick else 400)
        run = Run(
            capacity=capacity,
            high=2 * capacity,
            low=capacity / 2,
            high_seconds=options.high_seconds,
            seconds=options.total_seconds,
            concurrency=_CONCURRENCY,
        )
        expected = replay.simulated(run)
        steps = replay.script(expected, run.period)
        bench.console.print(f"one worker delivers {capacity:.1f}/s, ready after {workers.start_seconds:.1f} s; {steps}")
        seen = _run(ours, workers, run, steps)
    finally:
        workers.stop()
    return _told(bench, about, run, expected, steps, seen)


def _capacity(ours: Ours, workers: Workers, messages: int) -> float:
    """Messages a second of one worker: a backlog is there before it begins; its start is not counted."""
    generator.run(generator.COMMAND, ours.target(), Load(10, 0, warmup_seconds=0, messages=messages))
    workers.want(1)
    first, began = ours.left(), time.monotonic()
    half = first // 10
    while ours.left() > half:
        time.sleep(0.05)
    delivered, seconds = first - ours.left(), time.monotonic() - began
    if not until_empty(ours, 60):
        raise RuntimeError(f"one worker did not deliver {messages} messages: {ours.left()} are left")
    ours.clean()
    return delivered / seconds


def _run(ours: Ours, workers: Workers, run: Run, steps: list[tuple[int, int]]) -> dict[str, Any]:
    """Offered and scaled for real: the backlog by second, and what was accepted."""
    began = time.monotonic()
    times: list[float] = []
    backlog: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(max(0.0, began + _LOOK_SECONDS * (len(times) + 1) - time.monotonic())):
            times.append(time.monotonic() - began)
            backlog.append(ours.left())

    def scale() -> None:
        for at, count in steps[1:]:
            # A task that starts is there when the simulation has it: as long before as it takes.
            early = workers.start_seconds if count > len(workers) else 0.0
            if over.wait(max(0.0, began + at - early - time.monotonic())):
                return
            workers.want(count)

    threads = [threading.Thread(target=watch), threading.Thread(target=scale)]
    for thread in threads:
        thread.start()
    try:
        high = _offered(ours, run.high, run.high_seconds)
        low = _offered(ours, run.low, run.seconds - (time.monotonic() - began))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    return {
        "times": times,
        "backlog": backlog,
        "accepted": high["accepted_total"] + low["accepted_total"],
        "errors": sum(high["errors"].values()) + sum(low["errors"].values()),
        "workers_failed": workers.failed(),
    }


def _offered(ours: Ours, rate: float, seconds: float) -> dict[str, Any]:
    load = Load(20, seconds, warmup_seconds=0, rate=rate)
    return generator.run(generator.COMMAND, ours.target(), load)


def _told(
    bench: runner.Bench,
    about: dict[str, Any],
    run: Run,
    expected: Result,
    steps: list[tuple[int, int]],
    seen: dict[str, Any],
) -> int:
    real = replay.shape(seen["times"], [float(each) for each in seen["backlog"]])
    wanted = replay.shape([each.at for each in expected.samples], [each.backlog for each in expected.samples])
    verdicts = [Verdict.of(check, [{}]) for check in _checks(real, wanted)]
    figures = {
        "accepted": seen["accepted"],
        "simulated_accepted": round(expected.accepted),
        "errors": seen["errors"],
        "workers_failed": len(seen["workers_failed"]),
        "peak": real.peak,
        "simulated_peak": round(wanted.peak),
        "peak_at": round(real.peak_at, 1),
        "simulated_peak_at": wanted.peak_at,
        "gone_at": real.gone_at and round(real.gone_at, 1),
        "simulated_gone_at": wanted.gone_at,
    }
    bench.console.print(str(figures))
    bench.finish(
        about,
        verdicts,
        seen={"backlog under scripted scaling": figures},
        run=run.asdict(),
        script=[list(step) for step in steps],
        backlog=[[round(at, 2), left] for at, left in zip(seen["times"], seen["backlog"], strict=True)],
    )
    return 0


def _checks(real: Shape, wanted: Shape) -> list[Check]:
    peak = replay.difference(real.peak, wanted.peak)
    gone = replay.difference(real.gone_at, wanted.gone_at)
    return [
        Check("highest backlog: real beside simulated, difference", lambda _: peak, _WITHIN, at_least=False),
        Check("until it was gone: real beside simulated, difference", lambda _: gone, _WITHIN, at_least=False),
    ]


if __name__ == "__main__":
    sys.exit(main())
