"""uvicorn, with what it has not got: a bound on connections that ask nothing, and an end that is ours to say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from smtp_proxy.errors import ConfigurationError
from smtp_proxy.telemetry.tasks import end

if TYPE_CHECKING:
    from fastapi import FastAPI

    from smtp_proxy.telemetry.lifecycle import Lifecycle

log = logging.getLogger(__name__)

# Longer than a load balancer keeps an idle connection (60 s), so that it is never one that we close just then.
KEEP_ALIVE_SECONDS: Final = 75
# Until the head of a first request is there, and of a further one once it has begun.
HEAD_SECONDS: Final = 20.0
CONNECTIONS_MAX: Final = 1000
_LOOK_SECONDS: Final = 1.0
_BACKLOG: Final = 1024
# Until tasks that were told to end have ended.
_ENDING_SECONDS: Final = 2.0


def bind(host: str, port: int) -> socket.socket:
    """The port, where nobody is let in yet. Raises ConfigurationError: it can not be had."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"API_HOST, API_PORT: can not listen on {host}:{port}: {error.strerror or error}; choose another"
        ) from None
    return listener


class HttpServer(uvicorn.Server):
    """Signals are the lifecycle's."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",  # it warns of what any stranger may send
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def run_until_stopped(self, listener: socket.socket, lifecycle: Lifecycle) -> None:
        """Serve; once told to stop take no more connections, and answer what was asked until the deadline."""
        serving = asyncio.create_task(self.serve(sockets=[listener]), name="http")
        watching = asyncio.create_task(self._watch(), name="http connections")
        for task in (serving, watching):
            lifecycle.watch(task)
        lifecycle.on_close("http", self._close)
        answering = asyncio.create_task(self._hold(serving, lifecycle), name="http requests")
        try:
            await lifecycle.run_until_stopped()
        finally:
            await self._leave(serving)
            await end([watching, answering])

    def _close(self) -> None:
        self.should_exit = True

    async def _hold(self, serving: asyncio.Task[None], lifecycle: Lifecycle) -> None:
        """A token for what is under way: the lifecycle says how long that is waited for."""
        with lifecycle.hold("requests"):
            await asyncio.wait([serving])

    async def _leave(self, serving: asyncio.Task[None]) -> None:
        self.should_exit = self.force_exit = True
        for task in self.server_state.tasks:
            task.cancel()
        done, _ = await asyncio.wait([serving], timeout=_ENDING_SECONDS)
        if not done:
            await end([serving])

    async def _watch(self) -> None:
        """Close who has asked nothing for too long; and, where there are too many, who has for longest."""
        since: dict[Any, float] = {}
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = asyncio.get_running_loop().time()
            waiting = [each for each in self.server_state.connections if _asks_nothing(each)]
            since = {each: since.get(each, now) for each in waiting}
            over = len(self.server_state.connections) - CONNECTIONS_MAX
            longest = sorted(since, key=since.__getitem__)[: max(0, over)]
            for each in {*longest, *(each for each, at in since.items() if now - at > _patience(each))}:
                each.transport.close()
            if over > 0:
                log.warning("too many connections: %d closed", len(longest), extra={"action": "connections_closed"})


def _asks_nothing(connection: Any) -> bool:
    return connection.cycle is None or bool(connection.cycle.response_complete)


def _patience(connection: Any) -> float:
    # What has asked before may rest as long as uvicorn lets it; then the head of a next request has its time.
    return HEAD_SECONDS if connection.cycle is None else KEEP_ALIVE_SECONDS + HEAD_SECONDS
