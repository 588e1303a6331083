"""`smtp-proxy serve api`: the HTTP API on one port, as many of them as wanted.

It takes no mail and delivers none; Postgres is all that it needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from smtp_proxy.api.app import make_app
from smtp_proxy.api.desk import Desk
from smtp_proxy.api.http import HttpServer, bind
from smtp_proxy.clock import SystemClock
from smtp_proxy.store.arrival import connect_when_there
from smtp_proxy.telemetry import emf, health
from smtp_proxy.telemetry.lifecycle import Lifecycle
from smtp_proxy.tenants import ApiKeyChecker

if TYPE_CHECKING:
    import socket

    from smtp_proxy.config import Settings
    from smtp_proxy.store import Store

log = logging.getLogger(__name__)

_SHARED_SECONDS = 1.0


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises ConfigurationError, StoreMisconfigured, SchemaMismatch: the operator has to act.
    """
    lifecycle = Lifecycle(settings.shutdown_timeout_seconds, settings.shutdown_delay_seconds)
    lifecycle.install_signals()
    with contextlib.closing(bind(settings.api_host, settings.api_port)) as listener:
        async with health.starting(settings.health_host, settings.health_port, service="api") as readiness:
            store = await connect_when_there(settings, "api", lifecycle, accepts=False)
            if store is None:
                return
            try:
                async with emf.reporting(settings, "api", clock=SystemClock()):
                    await _serve(listener, lifecycle, readiness, store)
            finally:
                await store.close()
    log.info("left", extra={"action": "left"})


async def _serve(listener: socket.socket, lifecycle: Lifecycle, readiness: health.Readiness, store: Store) -> None:
    async def pinged() -> str | None:
        await store.ping()
        return None

    async def stopping() -> str | None:
        return None if lifecycle.ready else "stopping"

    # What a target group is answered here is what /targetz of the health listener says.
    target = health.HealthServer("", 0, readiness.checks, service="api")

    async def listening() -> str | None:
        return None if server.started else "not listening yet"

    app = make_app(Desk(store, ApiKeyChecker(store, SystemClock())), Shared(target).status)
    server = HttpServer(app)
    where = "{}:{}".format(*listener.getsockname()[:2])
    log.info("listening: http on %s", where, extra={"action": "listening", "listener": "http"})
    with readiness.of({"postgres": pinged, "http": listening, "lifecycle": stopping}):
        await server.run_until_stopped(listener, lifecycle)


class Shared:
    """What `target` says of itself, asked once a second at most, however many strangers ask."""

    def __init__(self, target: health.HealthServer) -> None:
        self._target = target
        self._asking: asyncio.Task[int] | None = None
        self._at = 0.0

    async def status(self) -> int:
        """200, or 503."""
        now = asyncio.get_running_loop().time()
        if self._asking is None or (self._asking.done() and now - self._at >= _SHARED_SECONDS):
            self._asking, self._at = asyncio.create_task(self._ask(), name="health"), now
        return await asyncio.shield(self._asking)

    async def _ask(self) -> int:
        return (await self._target.answer("GET", "/targetz"))[0]
