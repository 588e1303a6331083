"""HTTP-01 (RFC 8555 8.3): every replica answers for every order, since what to answer is in the store.

Behind port 80, usually by a load balancer. It has this one path and no other.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import AsyncIterator
from typing import Final, Protocol

from aiohttp import web

from smtp_proxy.errors import ConfigurationError, StoreUnavailable

log = logging.getLogger(__name__)
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")  # RFC 8555 8.1: base64url


class Challenges(Protocol):
    """What is needed of the store."""

    async def acme_challenge(self, token: str) -> str | None: ...


@contextlib.asynccontextmanager
async def answering(host: str, port: int, store: Challenges) -> AsyncIterator[int]:
    """Answer while the block runs; yields the port. Raises ConfigurationError: the port can not be had."""

    async def answer(request: web.Request) -> web.Response:
        token = request.match_info["token"]
        try:
            found = await store.acme_challenge(token) if _TOKEN.fullmatch(token) else None
        except StoreUnavailable:
            return web.Response(status=503, headers={"Retry-After": "5"})
        if found is None:
            return web.Response(status=404, text="no such challenge\n")
        log.info("challenge answered", extra={"action": "challenge_answered"})
        return web.Response(body=found.encode("ascii"), content_type="application/octet-stream")

    application = web.Application()
    application.router.add_get("/.well-known/acme-challenge/{token}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigurationError(f"ACME_HTTP_HOST, ACME_HTTP_PORT: {host}:{port}: {error.strerror}") from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
