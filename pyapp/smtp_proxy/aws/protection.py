"""Scale-in protection of a task of ECS: asked for while there is work that does not fit into the stop time-out.

Fargate gives a task 120 s from SIGTERM. A service that says `busy` is not chosen when ECS scales in or deploys
(REQ-INFRA-SCALE-010): the agent is told so for some minutes, again before they are over, and that it is no longer so
when the service has been idle for a while. Should we die, it ends by itself.

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
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping
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
    """Follows `busy`, which says whether there is work now. One per process, on the event loop."""

    def __init__(self, agent: Agent, minutes: int, busy: Callable[[], bool], *, clock: Clock) -> None:
        self._agent = agent
        self._minutes = minutes
        self._busy = busy
        self._clock = clock
        self._busy_at = float("-inf")
        self._renew_at = float("inf")  # protected, while it is finite
        self._again_at = float("-inf")
        self._again_seconds = _AGAIN_FIRST_SECONDS
        TASK_PROTECTED.set(0)

    @property
    def is_held(self) -> bool:
        """ECS was told so, and has not been told otherwise."""
        return self._renew_at != float("inf")

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
        if now < self._again_at:
            return
        wanted = now < self._busy_at + IDLE_SECONDS
        if wanted and (not self.is_held or now >= self._renew_at):
            await self._ask(now, lambda: self._agent.protect(self._minutes), held=True)
        elif not wanted and self.is_held:
            await self._ask(now, self._agent.release, held=False)

    async def leave(self) -> None:
        """There is no work any more, or nobody left to do it."""
        if self.is_held:
            await self._ask(self._clock.monotonic(), self._agent.release, held=False)

    async def _ask(self, now: float, call: Callable[[], None], *, held: bool) -> None:
        try:
            await asyncio.to_thread(call)
        except AgentRefused as error:
            TASK_PROTECTION_FAILED.inc()
            log.warning(
                "task protection is not %s: %s", "held" if held else "released", error,
                extra={"action": "task_protection_failed"},
            )  # fmt: skip
            self._again_at = now + self._again_seconds * random.uniform(0.5, 1.5)  # noqa: S311 - spreads the fleet
            self._again_seconds = min(self._again_seconds * 2, _AGAIN_MAX_SECONDS)
            return
        if held != self.is_held:
            log.info("task protection is %s", "held" if held else "released", extra={"action": "task_protection"})
        self._again_seconds = _AGAIN_FIRST_SECONDS
        # At half of the time, so that one failure does not let it lapse.
        self._renew_at = now + self._minutes * 30 if held else float("inf")
        TASK_PROTECTED.set(held)


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
    protection = TaskProtection(Agent(uri), settings.task_protection_minutes, busy, clock=clock)
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
