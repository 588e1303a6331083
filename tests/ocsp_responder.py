"""A small OCSP responder over HTTP, for tests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from aiohttp import web
from cryptography.x509 import ocsp


@dataclass
class Responder:
    """`answer` makes the response (DER) for a request; replace it to misbehave."""

    url: str = ""
    status: int = 200
    answer: Callable[[ocsp.OCSPRequest], bytes] = lambda _: b""
    asked: list[int] = field(default_factory=list)  # serial numbers


@contextlib.asynccontextmanager
async def responding() -> AsyncIterator[Responder]:
    responder = Responder()

    async def handle(request: web.Request) -> web.Response:
        assert request.content_type == "application/ocsp-request"
        asked = ocsp.load_der_ocsp_request(await request.read())
        responder.asked.append(asked.serial_number)
        body = responder.answer(asked)
        return web.Response(body=body, status=responder.status, content_type="application/ocsp-response")

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        responder.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        yield responder
    finally:
        await runner.cleanup()
