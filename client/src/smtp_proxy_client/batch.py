"""Many mails, on a schedule or as fast as it goes, over one connection or several at once.

The schedule is open: mail k is due at k / rate after the begin, whatever happened to the mails
before it. So the rate does not drift, and a slow server shows as lateness (the phase `wait`)
instead of as a lower rate that nobody asked for. A failed mail is counted and the next one goes on.
Only options that make no sense end the run.

An interrupt lets the mails under way finish; a second one leaves at once.
"""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from smtp_proxy_client.dial import Dialer, Session
from smtp_proxy_client.errors import CertificateRejected, ClientError, UsageError
from smtp_proxy_client.message import Template
from smtp_proxy_client.send import deliver
from smtp_proxy_client.stats import Recorder, Result, Timings, timed

PROGRESS_SECONDS = 1.0

Progress = Callable[[Recorder], None]


@dataclass(frozen=True)
class Plan:
    """What to send and how fast."""

    template: Template
    sender: str
    recipients: tuple[str, ...]
    count: int
    rate_per_second: float | None = None
    connections: int = 1
    mails_per_connection: int = 1  # 0 is no limit.

    def due_seconds(self, index: int) -> float:
        """When mail `index`, from 0, is due after the begin."""
        return index / self.rate_per_second if self.rate_per_second else 0.0


class Batch:
    """One run of a plan."""

    def __init__(self, dialer: Dialer, plan: Plan, recorder: Recorder) -> None:
        self.stop = threading.Event()
        self.certificate_error: CertificateRejected | None = None
        self._dialer = dialer
        self._plan = plan
        self._recorder = recorder
        self._indices = itertools.count()
        self._lock = threading.Lock()
        self._begun = 0.0
        self._crash: BaseException | None = None

    def run(self, progress: Progress) -> Result:
        """Send all mails; report now and then."""
        workers = [
            threading.Thread(target=self._work, name=f"connection-{number}", daemon=True)
            for number in range(min(self._plan.connections, self._plan.count))
        ]
        self._begun = time.perf_counter()
        with stop_on_interrupt(self.stop):
            for worker in workers:
                worker.start()
            with suppress(KeyboardInterrupt):  # The second one: what is under way counts as unsent.
                self._watch(workers, progress)
        if self._crash:
            raise self._crash
        return self._recorder.result(interrupted=self.stop.is_set())

    def _watch(self, workers: list[threading.Thread], progress: Progress) -> None:
        due = time.perf_counter() + PROGRESS_SECONDS
        for worker in workers:
            while worker.is_alive():
                worker.join(timeout=min(0.1, PROGRESS_SECONDS))
                if time.perf_counter() >= due:
                    progress(self._recorder)
                    due += PROGRESS_SECONDS

    def _work(self) -> None:
        """One connection's life: take the next mail, wait until it is due, send it."""
        session, carried = None, 0
        try:
            for index, timings in self._turns():
                session = self._send(index, session, timings)
                carried = carried + 1 if session else 0
                if session and (not session.is_usable or carried == self._plan.mails_per_connection):
                    session.quit()
                    session, carried = None, 0
        except BaseException as error:  # Wrong options, or a defect of ours; the main thread raises it again.
            self._crash = error
            self.stop.set()
        finally:
            if session:
                session.quit()

    def _turns(self) -> Iterator[tuple[int, Timings]]:
        """The mails this worker sends, each handed out when it is due."""
        while True:
            with self._lock:
                index = next(self._indices)
            if index >= self._plan.count:
                return
            due = self._begun + self._plan.due_seconds(index)
            if self.stop.wait(max(0.0, due - time.perf_counter())):
                return
            late = time.perf_counter() - due
            yield index, {"wait": max(0.0, late)} if self._plan.rate_per_second else {}

    def _send(self, index: int, session: Session | None, timings: Timings) -> Session | None:
        """One mail; the session it left behind, which may not be usable any more."""
        plan = self._plan
        recipient = plan.recipients[index % len(plan.recipients)]
        try:
            with timed(timings, "total"):
                letter = plan.template.compose(index + 1, plan.sender, (recipient,))
                session = session or self._dialer.dial(timings)
                deliver(session, letter, timings)
        except UsageError:  # It would be the same for every mail: the run ends.
            raise
        except ClientError as error:
            self._recorder.failed(timings, error)
            if isinstance(error, CertificateRejected):
                self.certificate_error = error
        else:
            self._recorder.accepted(timings)
        return session


@contextmanager
def stop_on_interrupt(stop: threading.Event) -> Iterator[None]:
    """Make the first SIGINT a request to stop, and the second one a KeyboardInterrupt."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield  # Signals are the main thread's business.
        return
    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
