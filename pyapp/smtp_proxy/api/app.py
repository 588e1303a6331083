"""The application: routers, and what is around them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.routing import Route

from smtp_proxy import __version__
from smtp_proxy.api import messages, problems, suppressions
from smtp_proxy.api.access import Access
from smtp_proxy.api.body import BodyLimit
from smtp_proxy.api.desk import Desk
from smtp_proxy.api.observed import Observed

# Answers what a load balancer asks: the status alone.
Health = Callable[[], Awaitable[int]]

_ABOUT = (
    "Suppressions and messages of one tenant: that of the key. Keys come from `smtp-proxy api-key create`.\n\n"
    "What is refused is answered with application/problem+json (RFC 9457)."
)
# Of every route with a key; 422 stands here since FastAPI describes one that is not ours.
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {**problems.PROBLEM, "description": HTTPStatus(status).phrase}
    for status in (400, 401, 403, 404, 408, 413, 422, 429, 503)
}


def make_app(desk: Desk, health: Health) -> FastAPI:
    """Build it. `desk` answers the requests, `health` is for GET /health."""
    app = FastAPI(
        title="smtp-proxy",
        version=__version__,
        description=_ABOUT,
        openapi_url="/api/openapi.json",
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.desk = desk
    problems.install(app)
    routers = (suppressions.router, messages.router)
    for router in routers:
        app.include_router(router, responses=_PROBLEMS)

    @app.get("/health", include_in_schema=False)
    async def answer_health() -> JSONResponse:
        # Nobody is known here, so it tells no more; /readyz of the health listener says what is wrong.
        status = await health()
        return JSONResponse({"service": "api", "ready": status == HTTPStatus.OK}, status)

    # With those of the routers themselves, which the framework keeps apart.
    routes = [*app.routes, *(route for router in routers for route in router.routes)]
    app.state.routes = [route for route in routes if isinstance(route, Route)]
    # The last is the outermost.
    app.add_middleware(BodyLimit)
    app.add_middleware(Access, desk=desk)
    app.add_middleware(Observed)
    return app
