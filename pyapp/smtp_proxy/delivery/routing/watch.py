"""The routes that count now: those of the file, read again when it changes; see `delivery.leg.Planner`.

So are they when a file that it names does (a password, a CA), and when a secret of AWS says something else once a next
hop has refused our login. A file that can not be used changes nothing: the last good routes stay, the log says what is
wrong, and it is tried again. What is under way ends by the routes with which it began.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from smtp_proxy.delivery.routing.file import RoutesFile, read_routes
from smtp_proxy.delivery.routing.load import Surroundings, build
from smtp_proxy.errors import SmtpProxyError

if TYPE_CHECKING:
    from smtp_proxy.delivery.leg import Leg
    from smtp_proxy.delivery.routing.planner import RoutePlanner
    from smtp_proxy.model.envelope import Job

log = logging.getLogger(__name__)

WATCH_SECONDS: Final = 2.0
# What could not be used is tried again after so long, then twice as long, and so on. A change is seen at once.
_FIRST_AGAIN_SECONDS: Final = 2.0
_MAX_AGAIN_SECONDS: Final = 60.0
# Between two questions to AWS, however many logins are refused.
_ASK_SECONDS: Final = 15.0

State = tuple[int, int, int] | None


class RoutesOfFile:
    """Plans by the file's last good state. It is read at once, which raises as `routing.load.build`."""

    def __init__(self, file: Path, surroundings: Surroundings) -> None:
        self._file = file
        self._clock = surroundings.clock
        self._around = replace(surroundings, base=replace(surroundings.base, login_refused=self._login_refused))
        self._seen: dict[Path, State] = {}
        self._routes = RoutesFile()
        self._trouble = ""
        self._again_seconds = _FIRST_AGAIN_SECONDS
        self._again_at = float("-inf")
        self._is_refused = False
        self._ask_at = float("-inf")
        self.planner: RoutePlanner = self._read()

    async def plan(self, job: Job) -> list[Leg]:
        return await self.planner.plan(job)

    async def run(self, seconds: float = WATCH_SECONDS) -> None:
        """Look whether anything changed; until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            await self.look()

    async def look(self) -> bool:
        """Read the file if there is reason to; whether new routes count now."""
        if not await asyncio.to_thread(self._has_reason):
            return False
        try:
            self.planner = await asyncio.to_thread(self._read)
        except SmtpProxyError as error:
            self._fail(str(error))
            return False
        self._trouble, self._again_seconds = "", _FIRST_AGAIN_SECONDS
        log.info("routes read from %s", self._file, extra={"action": "routes_reloaded"})
        return True

    def _fail(self, trouble: str) -> None:
        if trouble != self._trouble:  # Said once, however often it is tried.
            log.error("the routes stay as they were: %s", trouble, extra={"action": "routes_refused"})
        self._trouble = trouble
        self._again_at = self._clock.monotonic() + self._again_seconds
        self._again_seconds = min(2 * self._again_seconds, _MAX_AGAIN_SECONDS)

    def _has_reason(self) -> bool:
        if any(_state(path) != state for path, state in self._seen.items()):
            return True
        if self._trouble:
            return self._clock.monotonic() >= self._again_at
        return self._are_secrets_new()

    def _are_secrets_new(self) -> bool:
        if not self._is_refused or self._clock.monotonic() < self._ask_at:
            return False
        self._is_refused = False
        self._ask_at = self._clock.monotonic() + _ASK_SECONDS
        return any(secret.is_renewed() for secret in self._routes.secrets)

    def _login_refused(self) -> None:
        self._is_refused = True

    def _read(self) -> RoutePlanner:
        """States come first: what changes while it is read is read again."""
        self._seen = {self._file: _state(self._file)}
        routes = read_routes(self._file)
        self._seen |= {path: _state(path) for path in routes.files}
        planner = build(routes, self._around, str(self._file))
        self._routes = routes
        return planner


def _state(file: Path) -> State:
    """What changes with the content, also when a link is turned to another file (as Kubernetes does)."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
