"""What happened, as one result type. The text and the JSON only read it.

Every duration of a run is kept, so that percentiles are exact: 8 bytes for each phase of each mail.
A phase is counted whenever it was completed, also by a mail that failed later; `total` only for
mails that were accepted. Failures are counted by their text, with a bound on different texts.
"""

from __future__ import annotations

import statistics
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from smtp_proxy_client.errors import ClientError

PHASES = {
    "wait": "how late a mail began, compared with the schedule of --rate",
    "connect": "name lookup and TCP connection",
    "tls": "STARTTLS, if used, and the TLS handshake",
    "hello": "the server's greeting and EHLO, before and after STARTTLS",
    "auth": "login",
    "mail": "MAIL FROM",
    "rcpt": "RCPT TO, all recipients",
    "data": "DATA, the message, and the final reply",
    "total": "all of an accepted mail, from its begin to the final reply",
}
MAX_FAILURE_TEXTS = 50
OTHER_FAILURES = "other failures"

Timings = dict[str, float]


@contextmanager
def timed(timings: Timings, phase: str) -> Iterator[None]:
    """Add the time spent inside to the phase; an error that passes learns in which phase it was."""
    begun = time.perf_counter()
    try:
        yield
    except ClientError as error:
        error.phase = error.phase or phase
        raise
    timings[phase] = timings.get(phase, 0.0) + time.perf_counter() - begun


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Nearest rank: the smallest value that at least `percent` % of the values do not exceed."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(rank, 1) - 1]


@dataclass(frozen=True)
class Summary:
    """One phase; seconds."""

    count: int
    min: float
    median: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, durations: Sequence[float]) -> Summary:
        """Summarise at least one duration."""
        ordered = sorted(durations)
        return cls(
            count=len(ordered),
            min=ordered[0],
            median=statistics.median(ordered),
            p95=percentile(ordered, 95),
            p99=percentile(ordered, 99),
            max=ordered[-1],
        )


@dataclass(frozen=True)
class Failure:
    """Failures that share their text."""

    text: str
    count: int
    temporary: bool


@dataclass(frozen=True)
class SentMail:
    """What is worth knowing of a single mail that was accepted."""

    message_id: str
    reply: str
    tls_version: str | None
    tls_cipher: str | None
    mechanism: str | None
    refused_recipients: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """What was asked for."""

    command: str
    host: str
    port: int
    tls: str
    count: int = 1
    rate_per_second: float | None = None
    connections: int = 1


@dataclass(frozen=True)
class Result:
    """What was asked for and what came of it."""

    run: Run
    accepted: int
    failed: int
    interrupted: bool
    elapsed_seconds: float
    failures: tuple[Failure, ...]
    phases: dict[str, Summary]
    mail: SentMail | None

    @property
    def unsent(self) -> int:
        """Mails that were never finished, because the run was interrupted."""
        return self.run.count - self.accepted - self.failed

    @property
    def accepted_per_second(self) -> float:
        """The rate that was reached."""
        return self.accepted / self.elapsed_seconds if self.elapsed_seconds else 0.0


class Recorder:
    """Collects from many threads and yields the `Result`."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._lock = threading.Lock()
        self._begun = time.perf_counter()
        self._durations: dict[str, array[float]] = {}
        self._failures: dict[str, tuple[int, bool]] = {}
        self._accepted = 0
        self._failed = 0

    @property
    def progress(self) -> tuple[int, int, float]:
        """Accepted, failed, seconds since the begin."""
        with self._lock:
            return self._accepted, self._failed, time.perf_counter() - self._begun

    def accepted(self, timings: Timings) -> None:
        """Count a mail that the server took."""
        with self._lock:
            self._accepted += 1
            self._keep(timings)

    def failed(self, timings: Timings, error: ClientError) -> None:
        """Count a mail that the server did not take, with the phases it got through."""
        with self._lock:
            self._failed += 1
            self._keep({phase: spent for phase, spent in timings.items() if phase != "total"})
            text = error.text
            if text not in self._failures and len(self._failures) >= MAX_FAILURE_TEXTS:
                text = OTHER_FAILURES
            count, temporary = self._failures.get(text, (0, True))
            self._failures[text] = count + 1, temporary and error.temporary

    def result(self, *, interrupted: bool = False, mail: SentMail | None = None) -> Result:
        """The state so far, which does not change any more."""
        with self._lock:
            return Result(
                run=self.run,
                accepted=self._accepted,
                failed=self._failed,
                interrupted=interrupted,
                elapsed_seconds=time.perf_counter() - self._begun,
                failures=self._sorted_failures(),
                phases={phase: Summary.of(self._durations[phase]) for phase in PHASES if phase in self._durations},
                mail=mail,
            )

    def _keep(self, timings: Timings) -> None:
        for phase, spent in timings.items():
            self._durations.setdefault(phase, array("d")).append(spent)

    def _sorted_failures(self) -> tuple[Failure, ...]:
        ordered = sorted(self._failures.items(), key=lambda item: (-item[1][0], item[0]))
        return tuple(Failure(text, count, temporary) for text, (count, temporary) in ordered)
