"""Requests to an ASGI application, without a socket."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    reads: int  # how often the body was asked for

    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    app: ASGIApp,
    method: str,
    path: str,
    *,
    key: str | None = None,
    body: Any = None,
    parts: Sequence[bytes] | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """`body` is sent as JSON; `parts` are sent as they are, one after the other."""
    sent = list(parts) if parts is not None else [b"" if body is None else json.dumps(body).encode()]
    given = {"host": "api.example", **(headers or {})}
    if key is not None:
        given["authorization"] = f"Bearer {key}"
    if body is not None:
        given["content-type"] = "application/json"
    target, _, query = path.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "method": method,
        "path": unquote(target), "raw_path": target.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "client": ("192.0.2.1", 40000), "server": ("127.0.0.1", 8080), "state": {},
    }  # fmt: skip
    answered: list[Message] = []

    reads = 0

    async def receive() -> Message:
        nonlocal reads
        reads += 1
        if not sent:
            return {"type": "http.disconnect"}
        part = sent.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(sent)}

    async def send(message: Message) -> None:
        answered.append(message)

    await app(scope, receive, send)
    start, *rest = answered
    found = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], found, b"".join(message.get("body", b"") for message in rest), reads)
