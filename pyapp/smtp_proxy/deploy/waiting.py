"""How long a deployment waits for AWS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from smtp_proxy.clock import Clock, SystemClock
from smtp_proxy.errors import DeployUnfinished

T = TypeVar("T")


class Patience:
    """Until `seconds` have passed in all; `sleep` is the machine's, or a test's."""

    def __init__(
        self, seconds: float, *, clock: Clock | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock or SystemClock()
        self._end = self._clock.monotonic() + seconds
        self._sleep = sleep

    def until(self, look: Callable[[], T | None], *, every_seconds: float) -> T | None:
        """What `look` finds; None when the time is over before that."""
        while (found := look()) is None and self._clock.monotonic() < self._end:
            self._sleep(every_seconds)
        return found


@contextmanager
def underway(what: str) -> Iterator[None]:
    """What AWS was told to do goes on without us, so whatever ends the waiting is told as that.

    Raises DeployUnfinished, with `what`: interrupted from the keyboard, credentials that expired, no network.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        raise DeployUnfinished(f"{what} (not waited for any more: {str(error) or type(error).__name__})") from error
