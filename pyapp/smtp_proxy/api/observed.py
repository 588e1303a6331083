"""Each request is counted, timed, and has an id that its answer and its log have in common.

A mistake of ours ends here: whoever asked hears nothing of it but that, since what is in an error is for the log.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from prometheus_client import Counter, Histogram

from smtp_proxy.api import problems

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

REQUESTS = Counter("smtp_api_requests_total", "Requests of the HTTP API", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "smtp_api_request_seconds",
    "Time of one request of the HTTP API, until its answer was handed over",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
# A stranger's method is not a label of its own, nor is a path that leads nowhere.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NOWHERE: Final = "none"
_LEAVING: Final = {"Retry-After": "1", "Connection": "close"}


class Observed:
    """Middleware, the outermost one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, request_id = perf_counter(), 0, uuid4().hex

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            # Of the server alone, at its deadline: we leave. What has begun is broken off with its connection.
            if status:
                return
            await problems.response(503, "this server stops; ask again", headers=_LEAVING)(scope, receive, noted)
        except Exception:
            log.exception("failed", extra={"action": "request_failed", "request_id": request_id})
            if status:
                raise  # an answer has begun: the connection is broken off, so that nobody takes it for whole
            detail = f"a mistake of this server; its log has more, by request_id {request_id}"
            await problems.response(500, detail)(scope, receive, noted)
        finally:
            _observe(scope, status, request_id, perf_counter() - began)


def _observe(scope: Scope, status: int, request_id: str, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", _NOWHERE)
    method = scope["method"] if scope["method"] in _METHODS else "other"
    REQUESTS.labels(method, route, str(status)).inc()
    REQUEST_SECONDS.labels(route).observe(seconds)
    key = scope.get("state", {}).get("key")
    who = {} if key is None else {"tenant": key.tenant, "key": key.name}
    # The route and not the path: that has addresses in it.
    log.debug(
        "%s %s",
        method,
        route,
        extra={
            "action": "api_request",
            "status": status,
            "request_id": request_id,
            "seconds": round(seconds, 4),
            **who,
        },
    )
