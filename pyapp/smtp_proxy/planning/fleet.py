"""Tasks of one service over time: those that start, run, and drain."""

from __future__ import annotations

from collections import deque

from smtp_proxy.planning.stack import Service


class Fleet:
    """Times are seconds since the beginning. Pure."""

    def __init__(self, service: Service, start_seconds: float) -> None:
        self.service = service
        self._start_seconds = start_seconds
        self.running = service.min_tasks
        self._starting: deque[float] = deque()  # when each is there
        self._draining: deque[float] = deque()  # when each is gone
        self.most = self.running

    @property
    def wanted(self) -> int:
        return self.running + len(self._starting)

    @property
    def paid(self) -> int:
        """Tasks that cost money: also those that start, or drain."""
        return self.wanted + len(self._draining)

    def want(self, tasks: int, now: float, drain_seconds: float) -> None:
        """Have so many, within the service's bounds: what has not started yet goes first."""
        tasks = max(self.service.min_tasks, min(self.service.max_tasks, tasks))
        while self.wanted < tasks:
            self._starting.append(now + self._start_seconds)
        while self.wanted > tasks and self._starting:
            self._starting.pop()
        while self.running > tasks:
            self.running -= 1
            self._draining.append(now + drain_seconds)

    def advance(self, now: float) -> None:
        while self._starting and self._starting[0] <= now:
            self._starting.popleft()
            self.running += 1
        while self._draining and self._draining[0] <= now:
            self._draining.popleft()
        self.most = max(self.most, self.running)
