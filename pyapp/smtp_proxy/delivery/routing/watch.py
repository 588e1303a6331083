"""The routes that count now: those of the file, read again when it changes; see `delivery.leg.Planner`.

A file that can not be used changes nothing: the last good routes stay, and the log says what is wrong. What is under
way ends by the routes with which it began.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from smtp_proxy.delivery.routing.load import Surroundings, load
from smtp_proxy.errors import SmtpProxyError

if TYPE_CHECKING:
    from pathlib import Path

    from smtp_proxy.delivery.leg import Leg
    from smtp_proxy.delivery.routing.planner import RoutePlanner
    from smtp_proxy.model.envelope import Job

log = logging.getLogger(__name__)

WATCH_SECONDS: Final = 2.0


class RoutesOfFile:
    """Plans by the file's last good state. `load` happens at once, and raises as `routing.load.load`."""

    def __init__(self, file: Path, surroundings: Surroundings) -> None:
        self._file = file
        self._surroundings = surroundings
        self._seen = _state(file)
        self.planner: RoutePlanner = load(file, surroundings)

    async def plan(self, job: Job) -> list[Leg]:
        return await self.planner.plan(job)

    async def run(self, seconds: float = WATCH_SECONDS) -> None:
        """Look whether the file changed; until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            await self.look()

    async def look(self) -> bool:
        """Read the file if it changed; whether new routes count now."""
        state = await asyncio.to_thread(_state, self._file)
        if state == self._seen:
            return False
        self._seen = state
        try:
            self.planner = await asyncio.to_thread(load, self._file, self._surroundings)
        except SmtpProxyError as error:
            log.error("the routes stay as they were: %s", error, extra={"action": "routes_refused"})  # noqa: TRY400
            return False
        log.info("routes read from %s", self._file, extra={"action": "routes_reloaded"})
        return True


def _state(file: Path) -> tuple[int, int, int] | None:
    """What changes with the content, also when a link is turned to another file (as Kubernetes does)."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
