"""uvicorn, with what it has not got: a bound on connections that ask nothing, and an end that is ours to say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from smtp_proxy.errors import ConfigurationError
from smtp_proxy.telemetry.tasks import end

if TYPE_CHECKING:
    from fastapi import FastAPI

    from smtp_proxy.telemetry.lifecycle import Lifecycle

log = logging.getLogger(__name__)

# Longer than a load balancer keeps an idle connection (60 s), so that it is never one that we close just then.
KEEP_ALIVE_SECONDS: Final = 75
# Until the head of a request is there: of a first one, and of a further one beyond the time for which uvicorn waits.
HEAD_SECONDS: Final = 20.0
# Until an answer is taken.
ANSWER_SECONDS: Final = 30.0
CONNECTIONS_MAX: Final = 1000
_LOOK_SECONDS: Final = 1.0
_BACKLOG: Final = 1024
# Until what was told to end has ended, twice.
_ENDING_SECONDS: Final = 2.0


def bind(host: str, port: int) -> socket.socket:
    """The port, where nobody is let in yet. Raises ConfigurationError: it can not be had."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _taken(host, port, error) from None
    return listener


class HttpServer(uvicorn.Server):
    """Signals are the lifecycle's."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Connection,
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
        """Serve; once told to stop take no more connections, and answer what was asked until the deadline.

        Raises ConfigurationError: somebody else listens there since `bind`.
        """
        with _naming(listener):
            listener.listen(_BACKLOG)
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
        """Whoever is still answered hears so, and is not waited for if it does not listen."""
        self.should_exit = self.force_exit = True
        for task in self.server_state.tasks:
            task.cancel()
        await asyncio.wait([serving, *self.server_state.tasks], timeout=_ENDING_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.wait([serving, *self.server_state.tasks], timeout=_ENDING_SECONDS)
        await end([serving])

    async def _watch(self) -> None:
        """Cut off who asks nothing for too long, or takes no answer; and of too many those who do so for longest."""
        marks: dict[_Connection, tuple[_Mark, float]] = {}
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = asyncio.get_running_loop().time()
            marks = _marked(self.server_state.connections, marks, now)
            over = max(0, len(self.server_state.connections) - CONNECTIONS_MAX)
            longest = sorted(marks, key=lambda each: marks[each][1])[:over]
            for each in {*longest, *(each for each, (mark, at) in marks.items() if now - at > mark.patience)}:
                each.transport.abort()
            if longest:
                log.warning("too many connections: %d closed", len(longest), extra={"action": "connections_closed"})


class _Connection(H11Protocol):
    """uvicorn's, but that what is no HTTP, once it was answered, ends in no traceback."""

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()


@dataclass(frozen=True)
class _Mark:
    """What a connection waits for; `request`: by which one, so that it is no longer that once it has asked again."""

    request: object
    patience: float


def _marked(
    connections: Iterable[Any], before: Mapping[_Connection, tuple[_Mark, float]], now: float
) -> dict[_Connection, tuple[_Mark, float]]:
    """Those that wait for their client, each with since when it was seen so."""
    found: dict[_Connection, tuple[_Mark, float]] = {}
    for each in connections:
        if (mark := _mark(each)) is not None:
            known = before.get(each)
            found[each] = known if known is not None and known[0] == mark else (mark, now)
    return found


def _mark(connection: _Connection) -> _Mark | None:
    """None: it is we who are to answer."""
    if connection.transport.get_write_buffer_size() > 0:
        return _Mark(connection.cycle, ANSWER_SECONDS)
    if connection.cycle is None:
        return _Mark(None, HEAD_SECONDS)
    if connection.cycle.response_complete:
        return _Mark(connection.cycle, KEEP_ALIVE_SECONDS + HEAD_SECONDS)
    return None


@contextlib.contextmanager
def _naming(listener: socket.socket) -> Iterator[None]:
    """An error of this port as one that names it."""
    host, port = listener.getsockname()[:2]
    try:
        yield
    except OSError as error:
        raise _taken(host, port, error) from None


def _taken(host: str, port: int, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"API_HOST, API_PORT: can not listen on {host}:{port}: {error.strerror or error}; choose another"
    )
