"""How a refusal looks: `application/problem+json` (RFC 9457), whoever refuses."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from smtp_proxy.errors import InvalidValue, NotFound, SmtpProxyError, StoreUnavailable

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
_AGAIN_SECONDS: Final = "5"
# Of what is wrong with a request, so much is told.
_ERRORS_MAX: Final = 20
_FIELD_MAX: Final = 80
_NAMED_MAX: Final = 3

# Describes one.
PROBLEM: Final[dict[str, Any]] = {"description": "Refused", "content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}

Headers = Mapping[str, str]


class Problem(Exception):
    """A request that is refused.

    Args:
        status: of HTTP.
        detail: one sentence for who asked: what is wrong, and what to do.
        headers: of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Headers | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


def response(
    status: int, detail: str, *, headers: Headers | None = None, errors: Sequence[Mapping[str, str]] | None = None
) -> JSONResponse:
    """The answer. `errors`: each names a `field` of the request and says what is wrong with it."""
    body: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    body["detail"] = detail
    if errors is not None:
        body["errors"] = list(errors)
    return JSONResponse(body, status, headers=headers, media_type=MEDIA_TYPE)


def of_problem(problem: Problem, more: Headers | None = None) -> JSONResponse:
    """The answer, with `more` headers."""
    return response(problem.status, problem.detail, headers={**(problem.headers or {}), **(more or {})})


def unavailable(error: StoreUnavailable, more: Headers | None = None) -> JSONResponse:
    """Postgres does not answer: why is for the log."""
    log.warning("not answered: %s", error, extra={"action": "store_away"})
    detail = "the database does not answer; what was asked may be done all the same: look, or ask again"
    return response(503, detail, headers={"Retry-After": _AGAIN_SECONDS, **(more or {})})


def install(app: FastAPI) -> None:
    """Have every error of this application look so; what is nobody's but ours goes on (see `observed`)."""
    app.add_exception_handler(Problem, _of_problem)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(SmtpProxyError, _of_ours)


async def _of_problem(request: Request, error: Exception) -> JSONResponse:
    del request
    assert isinstance(error, Problem)  # noqa: S101 - as it is installed
    return of_problem(error)


async def _of_http(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses: no such path, no such method, a body that can not be read."""
    assert isinstance(error, HTTPException)  # noqa: S101 - as it is installed
    detail, headers = str(error.detail), error.headers
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = "there is no such path; /api/openapi.json lists them"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        methods = ", ".join(_methods(request))
        detail = f"{request.method} is not for this path; there are {methods}"
        headers = {"Allow": methods}
    return response(error.status_code, detail, headers=headers)


async def _of_validation(request: Request, error: Exception) -> JSONResponse:
    del request
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as it is installed
    # Not what was given: it may be anything, and of any size.
    found = error.errors()[:_ERRORS_MAX]
    errors = [{"field": _field(each["loc"]), "detail": str(each["msg"])} for each in found]
    named = "; ".join(f"{each['field']}: {each['detail']}" for each in errors[:_NAMED_MAX])
    return response(422, named or "the request can not be read", errors=errors)


async def _of_ours(request: Request, error: Exception) -> JSONResponse:
    del request
    if isinstance(error, InvalidValue):
        return response(422, str(error))
    if isinstance(error, NotFound):
        return response(404, str(error))
    if isinstance(error, StoreUnavailable):
        return unavailable(error)
    raise error


def _methods(request: Request) -> list[str]:
    """Of every route to this path: the framework names those of the first alone."""
    there = [route for route in request.app.state.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in there for method in route.methods})


def _field(location: Sequence[int | str]) -> str:
    return ".".join(str(part)[:_FIELD_MAX] for part in location)
