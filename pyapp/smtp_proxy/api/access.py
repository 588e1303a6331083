"""Who asks, and may they: `Authorization: Bearer KEY` (RFC 6750)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from smtp_proxy.api.desk import Desk
from smtp_proxy.api.problems import Problem
from smtp_proxy.model.api_key import ApiKey, ApiScope

_BEARER = HTTPBearer(auto_error=False, description="A key of `smtp-proxy api-key create`.")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, with what they ask of."""

    key: ApiKey
    desk: Desk


def allowed(scope: ApiScope) -> Callable[..., Awaitable[Caller]]:
    """A dependency: the caller, who has that scope. Refuses with 401 who is not known, with 403 who may not."""

    async def caller(
        request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
    ) -> Caller:
        desk: Desk = request.app.state.desk
        if given is None:
            raise Problem(
                401,
                "say who you are, with Authorization: Bearer KEY",
                {"WWW-Authenticate": 'Bearer realm="smtp-proxy"'},
            )
        key = await desk.keys.find(given.credentials)
        if key is None:
            raise Problem(
                401,
                "this key opens nothing: it is not known, was revoked or has expired, or its tenant is disabled",
                {"WWW-Authenticate": 'Bearer realm="smtp-proxy", error="invalid_token"'},
            )
        # For the log and the metrics, whatever becomes of the request.
        request.state.key = key
        if scope not in key.scopes:
            raise Problem(
                403,
                f"the key {key.name} has not the scope {scope}",
                {"WWW-Authenticate": f'Bearer realm="smtp-proxy", error="insufficient_scope", scope="{scope}"'},
            )
        return Caller(key, desk)

    return caller
