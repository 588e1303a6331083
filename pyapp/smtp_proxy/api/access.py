"""Who asks, and may they: `Authorization: Bearer KEY` (RFC 6750).

Middleware looks who it is before anything of the body is read, and lets no tenant take all places; then each route asks
for its scope (`allowed`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from smtp_proxy.api import problems
from smtp_proxy.api.desk import Desk
from smtp_proxy.api.problems import Problem
from smtp_proxy.errors import StoreUnavailable
from smtp_proxy.model.api_key import ApiKey, ApiScope

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

# Where a key is needed.
PREFIX: Final = "/api/v1/"
# Requests under way at once: of all, and of one tenant. Each may hold a body (`body.MAX_BYTES`), and few connections to
# Postgres serve them all.
PLACES: Final = 64
PLACES_OF_A_TENANT: Final = 16
_BUSY: Final = {"Retry-After": "1"}
_REALM: Final = 'Bearer realm="smtp-proxy"'
# Describes it; who it is the middleware has seen.
_BEARER: Final = HTTPBearer(auto_error=False, description="A key of `smtp-proxy api-key create`.")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, with what they ask of."""

    key: ApiKey
    desk: Desk


def allowed(scope: ApiScope) -> Callable[..., Awaitable[Caller]]:
    """A dependency: the caller, who has that scope. Refuses with 403 who has not."""

    async def caller(request: Request, _: object = Depends(_BEARER)) -> Caller:
        key: ApiKey = request.state.key
        if scope not in key.scopes:
            raise Problem(
                403,
                f"the key {key.name} has not the scope {scope}",
                {"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{scope}"'},
            )
        return Caller(key, request.app.state.desk)

    return caller


class Access:
    """Middleware: behind it `state.key` is whose request it is, wherever one is needed."""

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self._app = app
        self._desk = desk
        self._under_way = 0
        self._of_tenants: Counter[UUID] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        try:
            with self._place():
                key = scope["state"]["key"] = await self._known(scope)
                with self._place_of(key):
                    await self._app(scope, receive, send)
        except Problem as problem:
            # The body is not read, so nothing may follow it.
            await problems.of_problem(problem, {"Connection": "close"})(scope, receive, send)
        except StoreUnavailable as error:
            await problems.unavailable(error, {"Connection": "close"})(scope, receive, send)

    async def _known(self, scope: Scope) -> ApiKey:
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        scheme, _, text = given.partition(" ")
        if scheme.lower() != "bearer" or not text.strip():
            raise Problem(401, "say who you are, with Authorization: Bearer KEY", {"WWW-Authenticate": _REALM})
        key = await self._desk.keys.find(text.strip())
        if key is None:
            raise Problem(
                401,
                "this key opens nothing: it is not known, was revoked or has expired, or its tenant is disabled",
                {"WWW-Authenticate": f'{_REALM}, error="invalid_token"'},
            )
        return key

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._under_way >= PLACES:
            raise Problem(503, "too many requests are under way; try again", _BUSY)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    @contextmanager
    def _place_of(self, key: ApiKey) -> Iterator[None]:
        if self._of_tenants[key.tenant_id] >= PLACES_OF_A_TENANT:
            raise Problem(
                429, f"{PLACES_OF_A_TENANT} requests of this tenant are under way; wait for one of them", _BUSY
            )
        self._of_tenants[key.tenant_id] += 1
        try:
            yield
        finally:
            self._of_tenants[key.tenant_id] -= 1
            if not self._of_tenants[key.tenant_id]:
                del self._of_tenants[key.tenant_id]
