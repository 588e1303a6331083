"""`smtp-proxy serve api`: the HTTP API on one port, as many of them as wanted.

It takes no mail and delivers none; Postgres is all that it needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import uvicorn

from smtp_proxy.api.app import make_app
from smtp_proxy.api.desk import Desk
from smtp_proxy.clock import SystemClock
from smtp_proxy.errors import ConfigurationError
from smtp_proxy.store.arrival import connect_when_there
from smtp_proxy.telemetry import emf, health
from smtp_proxy.telemetry.lifecycle import Lifecycle
from smtp_proxy.tenants import ApiKeyChecker

if TYPE_CHECKING:
    from fastapi import FastAPI

    from smtp_proxy.config import Settings
    from smtp_proxy.store import Store

log = logging.getLogger(__name__)

# Longer than a load balancer keeps an idle connection (60 s), so that it is never one that we close just then.
_KEEP_ALIVE_SECONDS: Final = 75
# More at once are answered 503: each may hold a request of a megabyte.
_CONNECTIONS_MAX: Final = 500


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises ConfigurationError, StoreMisconfigured, SchemaMismatch: the operator has to act.
    """
    lifecycle = Lifecycle(settings.shutdown_timeout_seconds, settings.shutdown_delay_seconds)
    lifecycle.install_signals()
    async with health.starting(settings.health_host, settings.health_port, service="api") as readiness:
        store = await connect_when_there(settings, "api", lifecycle, accepts=False)
        if store is None:
            return
        try:
            async with emf.reporting(settings, "api", clock=SystemClock()):
                await _serve(settings, lifecycle, readiness, store)
        finally:
            await store.close()
    log.info("left", extra={"action": "left"})


async def _serve(settings: Settings, lifecycle: Lifecycle, readiness: health.Readiness, store: Store) -> None:
    async def pinged() -> str | None:
        await store.ping()
        return None

    # What a target group is answered here is what /targetz of the health listener says.
    target = health.HealthServer("", 0, readiness.checks, service="api")

    async def status() -> int:
        return (await target.answer("GET", "/targetz"))[0]

    app = make_app(Desk(store, ApiKeyChecker(store, SystemClock())), status)
    with contextlib.closing(listen(settings)) as listener:
        server = _Server(app, settings.shutdown_timeout_seconds)
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
        lifecycle.watch(serving)
        lifecycle.on_close("http", lambda: server.leave(serving))
        where = "{}:{}".format(*listener.getsockname()[:2])
        log.info("listening: http on %s", where, extra={"action": "listening", "listener": "http"})
        with readiness.of({"postgres": pinged}):
            await lifecycle.run_until_stopped()


def listen(settings: Settings) -> socket.socket:
    """The port. Raises ConfigurationError: it can not be had."""
    host, port = settings.api_host, settings.api_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise ConfigurationError(
            f"API_HOST, API_PORT: can not listen on {host}:{port}: {error.strerror or error}; choose another"
        ) from None


class _Server(uvicorn.Server):
    """Signals are the lifecycle's."""

    def __init__(self, app: FastAPI, leaving_seconds: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                limit_concurrency=_CONNECTIONS_MAX,
                timeout_graceful_shutdown=max(1, int(leaving_seconds)),
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def leave(self, serving: asyncio.Task[None]) -> None:
        """Take no more connections, answer what was asked."""
        self.should_exit = True
        await asyncio.wait([serving])
