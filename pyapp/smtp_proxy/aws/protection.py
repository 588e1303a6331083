"""Scale-in protection of a task of ECS: asked for while there is work that does not fit into the stop time-out.

Fargate gives a task 120 s from SIGTERM. A service that says `busy` is not chosen when ECS scales in or deploys
(REQ-INFRA-SCALE-010): the agent is told so for some minutes, again before they are over, and that it is no longer so
when the service has been idle for a while. Should we die, it ends by itself.

Sessions that follow each other without a gap would hold it for ever, and scale-in and deployments would wait as long.
So it is held for TASK_PROTECTION_MAX_MINUTES at most, and then not at all for `REST_SECONDS`, work or none: a task that
ECS chooses then drains as any other does.

It is a wish and nothing waits for it: an agent that refuses or is away is logged, counted, and asked again.

Source: Amazon ECS developer guide, "Amazon ECS task scale-in protection endpoint":
`PUT $ECS_AGENT_URI/task-protection/v1/state`, `{"ProtectionEnabled": true, "ExpiresInMinutes": 60}`; answered by
`{"protection": {…}}`, `{"failure": {"Arn": …, "Reason": …}}` or `{"error": {"Code": …, "Message": …}}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import math
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from smtp_proxy.errors import ConfigurationError
from smtp_proxy.telemetry.metrics import TASK_PROTECTED, TASK_PROTECTION_FAILED
from smtp_proxy.telemetry.tasks import end

if TYPE_CHECKING:
    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings

log = logging.getLogger(__name__)

AGENT_VARIABLE: Final = "ECS_AGENT_URI"
_PATH: Final = "/task-protection/v1/state"
_LOOK_SECONDS: Final = 1.0
# Idle for so long before protection is given up: clients that come every few seconds do not make it flap.
IDLE_SECONDS: Final = 30.0
# So long without protection is a turn for ECS; breaks that are shorter do not begin a new hold.
REST_SECONDS: Final = 300.0
_AGENT_SECONDS: Final = 5.0
_ANSWER_MAX_BYTES: Final = 65_536
_AGAIN_FIRST_SECONDS: Final = 5.0
_AGAIN_MAX_SECONDS: Final = 60.0


class AgentRefused(Exception):
    """The agent did not do as asked; says why."""


class Agent:
    """The agent of ECS beside this task. Its calls block."""

    def __init__(self, uri: str) -> None:
        """Raises ConfigurationError."""
        parts = urlsplit(uri)
        try:
            self._host, self._port = parts.hostname or "", parts.port or 80
        except ValueError:
            self._host = ""
        if parts.scheme != "http" or not self._host:
            raise ConfigurationError(f"{AGENT_VARIABLE} is no http:// URL: ECS sets it, leave it alone")
        self._path = parts.path.rstrip("/") + _PATH

    def protect(self, minutes: int) -> None:
        """For so long from now. Raises AgentRefused."""
        self._put({"ProtectionEnabled": True, "ExpiresInMinutes": minutes})

    def release(self) -> None:
        """No longer. Raises AgentRefused."""
        self._put({"ProtectionEnabled": False})

    def _put(self, state: Mapping[str, Any]) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_AGENT_SECONDS)
        try:
            connection.request("PUT", self._path, json.dumps(state), {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read(_ANSWER_MAX_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise AgentRefused(f"the agent does not answer: {error or type(error).__name__}") from error
        finally:
            connection.close()
        _check(response.status, answer, wanted=bool(state["ProtectionEnabled"]))


class TaskProtection:
    """Follows `busy`, which says whether there is work now. One per process, on the event loop.

    It is asked for `minutes` at a time, and held for `max_minutes` in all between two rests.
    """

    def __init__(self, agent: Agent, minutes: int, busy: Callable[[], bool], *, max_minutes: int, clock: Clock) -> None:
        self._agent = agent
        self._minutes = minutes
        self._max_seconds = max_minutes * 60
        self._busy = busy
        self._clock = clock
        self._busy_at = float("-inf")
        self._since = float("-inf")  # first held after the last rest
        self._ended_at = float("-inf")
        self._renew_at = 0.0
        self._expires_at: float | None = None
        self._again_at = float("-inf")
        self._again_seconds = _AGAIN_FIRST_SECONDS
        self._asking: asyncio.Task[None] | None = None  # what the agent is told just now: to protect
        TASK_PROTECTED.set(0)

    @property
    def is_held(self) -> bool:
        """ECS was told so, has not been told otherwise, and it has not expired."""
        return self._expires_at is not None

    async def run(self) -> None:
        """Look again and again; for ever."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Tell the agent what has to be told now."""
        now = self._clock.monotonic()
        if self._busy():
            self._busy_at = now
        if now >= self._again_at:
            await self._tell(now)
        if self._expires_at is not None and now >= self._expires_at:
            log.warning("task protection has expired, not renewed", extra={"action": "task_protection_expired"})
            self._end(self._expires_at)

    async def leave(self) -> None:
        """There is no work any more, or nobody left to do it.

        What the agent was told when we were cancelled goes on, and may come to hold: it is given back too.
        """
        if self._asking is not None:
            await asyncio.wait([self._asking])
            self._asking.exception()  # seen: whether it came to hold is not asked, since giving back harms nobody
        if self.is_held or self._asking is not None:
            await self._release(self._clock.monotonic())

    async def _tell(self, now: float) -> None:
        if self._is_rested(now):
            self._since = now
        until = self._since + self._max_seconds
        wanted = now < self._busy_at + IDLE_SECONDS and now < until
        if wanted and self._is_due(now, until):
            await self._protect(now, until)
        elif not wanted and self.is_held:
            await self._release(now, "" if now < until else ", for it was held for TASK_PROTECTION_MAX_MINUTES")

    def _is_rested(self, now: float) -> bool:
        return not self.is_held and now >= self._ended_at + REST_SECONDS

    def _is_due(self, now: float, until: float) -> bool:
        """Not held; or to be renewed, and not yet held to the end."""
        return self._expires_at is None or (now >= self._renew_at and self._expires_at < until)

    async def _protect(self, now: float, until: float) -> None:
        # Not beyond `until`: should the agent be away by then, it ends all the same.
        minutes = min(self._minutes, math.ceil((until - now) / 60))
        self._asking = asyncio.create_task(asyncio.to_thread(self._agent.protect, minutes))
        is_held = await self._ask(now, asyncio.shield(self._asking), "held")
        self._asking = None  # not where we were cancelled meanwhile
        if not is_held:
            return
        if not self.is_held:
            log.info("task protection is held", extra={"action": "task_protection"})
        # At half of the time, so that one failure does not let it lapse.
        self._renew_at, self._expires_at = now + minutes * 30, now + minutes * 60
        TASK_PROTECTED.set(1)

    async def _release(self, now: float, why: str = "") -> None:
        if await self._ask(now, asyncio.to_thread(self._agent.release), "released"):
            log.info("task protection is released%s", why, extra={"action": "task_protection"})
            self._end(now)

    def _end(self, at: float) -> None:
        self._expires_at, self._ended_at = None, at
        TASK_PROTECTED.set(0)

    async def _ask(self, now: float, call: Awaitable[None], wanted: str) -> bool:
        """Whether the agent did it; if not, it is left alone for a while."""
        try:
            await call
        except AgentRefused as error:
            TASK_PROTECTION_FAILED.inc()
            log.warning("task protection is not %s: %s", wanted, error, extra={"action": "task_protection_failed"})
            self._again_at = now + self._again_seconds * random.uniform(0.5, 1.5)  # noqa: S311 - spreads the fleet
            self._again_seconds = min(self._again_seconds * 2, _AGAIN_MAX_SECONDS)
            return False
        self._again_seconds = _AGAIN_FIRST_SECONDS
        return True


@contextlib.asynccontextmanager
async def protecting(
    settings: Settings, busy: Callable[[], bool], *, clock: Clock, environ: Mapping[str, str] = os.environ
) -> AsyncIterator[None]:
    """While the block runs, hold protection whenever `busy`, where there is an agent. Raises ConfigurationError."""
    uri = environ.get(AGENT_VARIABLE, "")
    if settings.task_protection == "on" and not uri:
        raise ConfigurationError(
            f"TASK_PROTECTION=on, and there is no {AGENT_VARIABLE}, which ECS sets: run as a task of ECS, or write auto"
        )
    if settings.task_protection == "off" or not uri:
        yield
        return
    minutes, max_minutes = settings.task_protection_minutes, settings.task_protection_max_minutes
    protection = TaskProtection(Agent(uri), minutes, busy, max_minutes=max_minutes, clock=clock)
    task = asyncio.create_task(protection.run(), name="task protection")
    try:
        yield
    finally:
        await end([task])
        await protection.leave()


def _check(status: int, answer: bytes, *, wanted: bool) -> None:
    """Raise AgentRefused unless the answer says that it is as `wanted`."""
    try:
        document = json.loads(answer)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise AgentRefused(f"the agent answers {status}, and not as documented")
    failure, error, protection = (document.get(key) for key in ("failure", "error", "protection"))
    if isinstance(failure, dict):
        words = [str(failure[key]) for key in ("Reason", "Detail") if failure.get(key)]
        raise AgentRefused(f"ECS says {': '.join(words) or 'nothing of why'}")
    if isinstance(error, dict):
        code = error.get("Code", status)
        step = "; allow ecs:UpdateTaskProtection to the task's role" if code == "AccessDeniedException" else ""
        raise AgentRefused(f"ECS says {code}: {error.get('Message', '')}{step}")
    if status != 200 or not isinstance(protection, dict) or protection.get("ProtectionEnabled") is not wanted:
        raise AgentRefused(f"the agent answers {status}, and protection is not as asked")
