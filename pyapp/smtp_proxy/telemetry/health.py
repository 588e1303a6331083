"""A small HTTP server for the machinery around a service: /healthz, /readyz, /metrics.

Own code on asyncio streams: three fixed GET answers do not need a web framework in the process that takes the mail,
and it costs nothing while nobody asks. It is not meant for the open network; bind it to loopback or a private address.

* /healthz: 200 as long as the event loop turns.
* /readyz: 200 when every check passes, else 503; the body names the service, and says which check does not pass. A
  check is a coroutine function that returns None when well or a sentence when not; it has two seconds. A service that
  still waits for something is alive and not ready (`starting`): whoever replaced it would get one that waits too.
* /targetz: what the target group of a load balancer asks, for which ECS ends who fails it: as /readyz, but who was
  ready once remains so while what all tasks share is away (a check raised StoreUnavailable, or had no answer in time),
  since nobody else would be better. A task that starts or leaves, or has a fault of its own, is not ready here either.
* /metrics: Prometheus text format.

A PROXY v2 header before the request is passed over: where a target group of a network load balancer has PROXY v2 on,
its health checks begin with one too, at whatever port they ask (kubernetes/ingress-nginx#10982, istio/istio#25875).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from smtp_proxy.errors import ConfigurationError, SmtpProxyError, StoreMisconfigured, StoreUnavailable

Check = Callable[[], Awaitable[str | None]]

_CHECK_SECONDS = 2.0
_REQUEST_SECONDS = 5.0
_REQUEST_MAX_BYTES = 8192
_END_OF_HEAD = b"\r\n\r\n"
# The PROXY protocol, version 2, section 2.2: a signature that begins like an empty request, then version and command,
# family, and in two bytes the length of what follows.
_PROXY_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_PROXY_FIXED_BYTES = 16
_OWN_FAULTS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trouble:
    """Why a check does not pass."""

    said: str
    shared: bool  # by all tasks: another one would fare no better


class HealthServer:
    """`async with HealthServer(host, port, checks, service=name):`; port 0 in the settings means none, see `serve`."""

    def __init__(self, host: str, port: int, checks: Mapping[str, Check], *, service: str) -> None:
        self._host = host
        self._port = port
        self._checks = checks
        self._service = service
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._was_ready = False  # somebody asked and all was well

    @property
    def port(self) -> int:
        """The port that is bound; 0 before the start."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server and self._server.sockets else 0

    async def start(self) -> None:
        """Raises ConfigurationError when the port cannot be bound."""
        try:
            self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=_REQUEST_MAX_BYTES)
        except OSError as error:
            raise ConfigurationError(
                f"HEALTH_HOST, HEALTH_PORT: can not listen on {self._host}:{self._port}: {error.strerror or error}"
            ) from None

    async def stop(self) -> None:
        """Close the port and whatever is connected to it."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def answer(self, method: str, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body for a request."""
        if method not in ("GET", "HEAD"):
            return _text(405, "only GET and HEAD")
        match path.partition("?")[0]:
            case "/healthz":
                return _text(200, "ok")
            case "/readyz":
                return self._answered(await self._troubles())
            case "/targetz":
                troubles = await self._troubles()
                return self._answered(troubles, passing_over_shared=self._was_ready)
            case "/metrics":
                return 200, CONTENT_TYPE_LATEST, generate_latest()
            case _:
                return _text(404, "there are /healthz, /readyz, /targetz and /metrics")

    async def _troubles(self) -> dict[str, Trouble | None]:
        asked = dict(self._checks)  # as they are now: `Readiness` changes them
        troubles = dict(zip(asked, await asyncio.gather(*map(_run, asked.values())), strict=True))
        self._was_ready = self._was_ready or not any(troubles.values())
        return troubles

    def _answered(
        self, troubles: Mapping[str, Trouble | None], *, passing_over_shared: bool = False
    ) -> tuple[int, str, bytes]:
        ready = all(trouble is None or (trouble.shared and passing_over_shared) for trouble in troubles.values())
        checks = {name: trouble.said if trouble else "ok" for name, trouble in troubles.items()}
        body = {"service": self._service, "ready": ready, "checks": checks}
        return 200 if ready else 503, "application/json", json.dumps(body).encode() + b"\n"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        self._serving.add(task)
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                await self._serve_one(reader, writer)
        except (OSError, TimeoutError):
            pass  # whoever asked is gone or too slow; there is nobody to tell
        except asyncio.CancelledError:
            writer.transport.abort()  # we are stopping
        finally:
            writer.close()
            self._serving.discard(task)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(_END_OF_HEAD)
            if head == _END_OF_HEAD and await _pass_over_proxy_header(reader):
                head = await reader.readuntil(_END_OF_HEAD)
        except asyncio.IncompleteReadError:
            return
        except asyncio.LimitOverrunError:
            head = b""
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) == 3:
            method = words[0]
            status, kind, body = await self.answer(method, words[1])
        else:
            method = "GET"
            status, kind, body = _text(400, "not a request")
        log.debug("%s", " ".join(words[:2]), extra={"action": "health_request", "status": status})
        writer.write(
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            "Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode("latin-1")
        )
        writer.write(b"" if method == "HEAD" else body)
        await writer.drain()


async def _pass_over_proxy_header(reader: asyncio.StreamReader) -> bool:
    """Whether, after the four bytes that are read already, the rest of a PROXY v2 header was there; it is read then."""
    rest = await reader.readexactly(_PROXY_FIXED_BYTES - len(_END_OF_HEAD))
    length = int.from_bytes(rest[-2:])
    if _END_OF_HEAD + rest[:-4] != _PROXY_SIGNATURE or length > _REQUEST_MAX_BYTES:
        return False
    await reader.readexactly(length)
    return True


async def _run(check: Check) -> Trouble | None:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            said = await check()
    except TimeoutError:
        return Trouble(f"no answer within {_CHECK_SECONDS:g} s", shared=True)
    except SmtpProxyError as error:
        return Trouble(str(error), shared=_is_shared(error))
    except Exception as error:
        log.exception("a readiness check failed", extra={"action": "check_failed"})
        return Trouble(f"{type(error).__name__}", shared=False)
    return Trouble(said, shared=False) if said else None


def _is_shared(error: SmtpProxyError) -> bool:
    # Who is turned away may be so alone, by a login of this task that has ended, say; who ran out of what its machine
    # gives it is so.
    if not isinstance(error, StoreUnavailable) or isinstance(error, StoreMisconfigured):
        return False
    return not (isinstance(error.__cause__, OSError) and error.__cause__.errno in _OWN_FAULTS)


def _text(status: int, text: str) -> tuple[int, str, bytes]:
    return status, "text/plain; charset=utf-8", text.encode() + b"\n"


class Readiness:
    """What /readyz asks of a service that begins, runs and ends while its health is served."""

    def __init__(self) -> None:
        self.checks: dict[str, Check] = {"start": _starting}

    @contextlib.contextmanager
    def of(self, checks: Mapping[str, Check]) -> Iterator[None]:
        """While the block runs the service is ready where these pass; afterwards it leaves."""
        self._ask(checks)
        try:
            yield
        finally:
            self._ask({"lifecycle": _leaving})

    def _ask(self, checks: Mapping[str, Check]) -> None:
        self.checks.clear()
        self.checks.update(checks)


async def _starting() -> str | None:
    return "not started yet; the log says what is waited for"


async def _leaving() -> str | None:
    return "leaving"


@contextlib.asynccontextmanager
async def starting(host: str, port: int, *, service: str) -> AsyncIterator[Readiness]:
    """Serve health of `service` from before it waits for anything; not ready before it says what is to be asked."""
    readiness = Readiness()
    async with serve(host, port, readiness.checks, service=service):
        yield readiness


@contextlib.asynccontextmanager
async def serve(
    host: str, port: int, checks: Mapping[str, Check], *, service: str
) -> AsyncIterator[HealthServer | None]:
    """Serve health of `service` on `host:port` while the block runs; port 0: nothing is opened, None is given."""
    if port == 0:
        yield None
        return
    async with HealthServer(host, port, checks, service=service) as server:
        yield server
