"""`smtp-proxy serve sink`: takes any mail on loopback and keeps it for whoever wants to look.

SMTP by aiosmtpd, without TLS and AUTH. Over HTTP: `GET /messages?after=N&limit=M`, `GET /messages/N`,
`DELETE /messages` (docs/DEV.md). It is for a laptop and for tests, and binds to loopback unless told otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sqlite3
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import uvicorn
from aiosmtpd.smtp import SMTP, Envelope, Session
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import RedirectResponse

from smtp_proxy.clock import SystemClock
from smtp_proxy.config import Settings, environment_name
from smtp_proxy.dev.mailbox import Kept, Mailbox
from smtp_proxy.errors import ConfigurationError, ServiceFailed
from smtp_proxy.telemetry import health
from smtp_proxy.telemetry.lifecycle import Lifecycle

log = logging.getLogger(__name__)

_SIZE_MARGIN_BYTES = 64 * 1024  # for the fields that relays put in front
_LIST_MAX = 100_000
_NUMBER_MAX = 2**63 - 1  # of a SQLite integer
_RECIPIENTS_SHOWN = 3
_BACKLOG = 1024
_TOLD_PER_SECOND = 10


class Handler:
    """What aiosmtpd asks."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._clock = SystemClock()
        self._told = 0
        self._window_began = 0.0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's
        del server, session
        content = envelope.original_content or b""
        # aiosmtpd gives the null reverse-path its brackets, and no other one.
        sender = "" if envelope.mail_from in (None, "<>") else envelope.mail_from
        try:
            number = self._mailbox.add(sender, envelope.rcpt_tos, content, self._clock.now())
        except sqlite3.Error as error:
            log.warning("a message can not be kept now: %s", error, extra={"action": "sink_failed"})
            return "451 4.3.0 it can not be kept now"
        self._tell(number, sender, envelope, len(content))
        return f"250 2.0.0 kept as {number}"

    def _tell(self, number: int, sender: str, envelope: Envelope, size_bytes: int) -> None:
        """Say it while it is one by one; a flood would only scroll everything else away."""
        now = self._clock.monotonic()
        if now - self._window_began >= 1.0:
            self._window_began, self._told = now, 0
        self._told += 1
        if self._told < _TOLD_PER_SECOND:
            facts = {"action": "kept", "size_bytes": size_bytes}
            log.info("kept %d: <%s> to %s", number, sender, _some(envelope.rcpt_tos), extra=facts)
        elif self._told == _TOLD_PER_SECOND:
            log.info("kept %d, and goes on without telling of each", number, extra={"action": "kept"})


def _some(addresses: list[str]) -> str:
    """The first few."""
    shown = ", ".join(f"<{address}>" for address in addresses[:_RECIPIENTS_SHOWN])
    more = len(addresses) - _RECIPIENTS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def make_app(mailbox: Mailbox) -> FastAPI:
    """Build the HTTP side."""
    app = FastAPI(title="smtp-proxy sink", docs_url=None, redoc_url=None)

    @app.exception_handler(sqlite3.Error)
    async def unavailable(_: Request, error: sqlite3.Error) -> Response:
        log.warning("the file can not be used now: %s", error, extra={"action": "sink_failed"})
        return Response(f"the file can not be used now: {error}\n", status_code=503, media_type="text/plain")

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/messages")

    @app.get("/messages")
    async def messages(
        after: Annotated[int, Query(ge=0, le=_NUMBER_MAX)] = 0,
        limit: Annotated[int, Query(ge=1, le=_LIST_MAX)] = _LIST_MAX,
    ) -> list[Kept]:
        return mailbox.messages(after, limit)

    @app.get("/messages/{number}")
    async def message(number: Annotated[int, PathParameter(ge=0, le=_NUMBER_MAX)]) -> Response:
        content = mailbox.content(number)
        if content is None:
            raise HTTPException(404, f"there is no message {number}; it may have been forgotten")
        # Text, so that a browser shows it and runs nothing that is in it.
        return Response(content, media_type="text/plain", headers={"X-Content-Type-Options": "nosniff"})

    @app.delete("/messages", status_code=204)
    async def forget() -> None:
        mailbox.clear()

    return app


async def run(settings: Settings) -> None:
    """Take mail until told to stop by SIGTERM or SIGINT.

    Raises:
        ConfigurationError: a port can not be bound, or the file not be used.
    """
    lifecycle = Lifecycle(settings.shutdown_timeout_seconds)
    lifecycle.install_signals()
    mailbox = Mailbox(settings.data_dir / "sink" / "mail.sqlite", settings.sink_keep_messages)
    with contextlib.closing(mailbox):
        async with _smtp(settings, mailbox), _http(settings, mailbox, lifecycle):
            checks = {"lifecycle": lambda: _stopping(lifecycle)}
            async with health.serve(settings.health_host, settings.health_port, checks, service="sink"):
                await lifecycle.run_until_stopped()
    log.info("left", extra={"action": "left"})


@contextlib.asynccontextmanager
async def _smtp(settings: Settings, mailbox: Mailbox) -> AsyncIterator[None]:
    """Listen for SMTP while the block runs."""
    loop = asyncio.get_running_loop()
    handler = Handler(mailbox)
    bound = _bind("sink_port", settings.sink_host, settings.sink_port)

    def connected() -> SMTP:
        return SMTP(
            handler,
            data_size_limit=settings.smtp_max_message_bytes + _SIZE_MARGIN_BYTES,
            enable_SMTPUTF8=True,
            hostname="sink.localhost",
            ident="smtp-proxy sink",
            loop=loop,
        )

    server = await loop.create_server(connected, sock=bound, backlog=_BACKLOG)
    _announce("smtp", bound)
    try:
        yield
    finally:
        server.close()


@contextlib.asynccontextmanager
async def _http(settings: Settings, mailbox: Mailbox, lifecycle: Lifecycle) -> AsyncIterator[None]:
    """Listen for HTTP while the block runs."""
    bound = _bind("sink_http_port", settings.sink_host, settings.sink_http_port)
    config = uvicorn.Config(make_app(mailbox), log_config=None, access_log=False, lifespan="off", ws="none")
    server = _HttpServer(config)
    serving = asyncio.create_task(_serve_until_told(server, bound))
    lifecycle.watch(serving)
    _announce("http", bound)
    try:
        yield
    finally:
        server.should_exit = server.force_exit = True
        await asyncio.gather(serving, return_exceptions=True)


async def _serve_until_told(server: uvicorn.Server, bound: socket.socket) -> None:
    await server.serve(sockets=[bound])
    if not server.should_exit:
        raise ServiceFailed("the sink's HTTP side ended")


class _HttpServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the lifecycle's."""
        yield


def _bind(setting: str, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        names = f"{environment_name('sink_host')}, {environment_name(setting)}"
        raise ConfigurationError(f"{names}: can not listen on {host}:{port}: {error.strerror}") from None
    bound.setblocking(False)
    return bound


def _announce(name: str, bound: socket.socket) -> None:
    address: Any = bound.getsockname()
    log.info("listening: %s on %s:%s", name, address[0], address[1], extra={"action": "listening", "listener": name})


async def _stopping(lifecycle: Lifecycle) -> str | None:
    return None if lifecycle.ready else "stopping"
