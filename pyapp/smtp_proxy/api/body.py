"""No request is larger than what an answer could need, whatever its Content-Length says, nor takes longer to come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A thousand addresses and a reason are some 300 KB.
MAX_BYTES: Final = 512 * 1024
SECONDS: Final = 20.0
# What is still to come is not read, so nothing may follow it.
_CLOSE: Final = {"Connection": "close"}


class BodyLimit:
    """Middleware: refuses with 413 where more than `max_bytes` come, with 408 where they take more than `seconds`.

    What it raises is an HTTPException: the one kind that whoever reads the body lets through.
    """

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BYTES, seconds: float = SECONDS) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        until, announced = asyncio.get_running_loop().time() + self._seconds, _announced(scope)
        read, is_whole = 0, False

        async def counted() -> Message:
            nonlocal read, is_whole
            if is_whole:
                return await receive()  # that the client has gone
            self._measure(announced)
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"a request comes within {self._seconds:g} s", _CLOSE) from None
            read += len(message.get("body", b""))
            self._measure(read)
            is_whole = not message.get("more_body", False)
            return message

        await self._app(scope, counted, send)

    def _measure(self, size: int) -> None:
        if size > self._max_bytes:
            raise HTTPException(413, f"a request has at most {self._max_bytes} bytes; send it in parts", _CLOSE)


def _announced(scope: Scope) -> int:
    """0: nothing, or no number, which the server below refuses."""
    given = dict(scope["headers"]).get(b"content-length", b"0")
    return int(given) if given.isdigit() and len(given) < 20 else 0
