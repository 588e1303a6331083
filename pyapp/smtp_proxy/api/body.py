"""No request is larger than what an answer could need, whatever its Content-Length says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException

from smtp_proxy.api import problems

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A thousand addresses and a reason are some 300 KB.
MAX_BYTES: Final = 1024 * 1024


class BodyLimit:
    """Middleware: answers 413 where more than `max_bytes` come, and reads no further."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        detail = f"a request has at most {self._max_bytes} bytes; send it in parts"
        # What is still to come is not read, so nothing may follow it.
        headers = {"Connection": "close"}
        if _announced(scope) > self._max_bytes:
            await problems.response(413, detail, headers=headers)(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                raise HTTPException(413, detail, headers)  # the one kind that whoever reads lets through
            return message

        await self._app(scope, counted, send)


def _announced(scope: Scope) -> int:
    """0: nothing, or no number, which the server below refuses."""
    given = dict(scope["headers"]).get(b"content-length", b"0")
    return int(given) if given.isdigit() else 0
