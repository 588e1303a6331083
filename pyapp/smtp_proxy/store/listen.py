"""LISTEN that survives the loss of its connection.

A notification sent while nobody listened is lost. So the callback is called as well when the connection is lost, at
each attempt to connect that fails, and after each (re)connection: what was learnt meanwhile may have changed unheard.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from smtp_proxy.errors import StoreUnavailable
from smtp_proxy.store.faults import store_errors
from smtp_proxy.store.leader import close_quietly
from smtp_proxy.store.pool import open_session
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from collections.abc import Callable

    import asyncpg

    from smtp_proxy.config import Settings

CREDENTIALS_CHANNEL = "smtp_proxy_credentials"
# `NOTIFY smtp_proxy_certificates` makes every SMTP service fetch the fleet's certificates and read its files again.
CERTIFICATES_CHANNEL = "smtp_proxy_certificates"
# An operator declared a certificate, or wants one now.
CERTIFICATE_ORDERS_CHANNEL = "smtp_proxy_certificate_orders"
DOMAINS_CHANNEL = "smtp_proxy_domains"
WEBHOOKS_CHANNEL = "smtp_proxy_webhooks"
_PING_SECONDS = 10.0
_RETRY_FIRST_SECONDS = 0.2
_RETRY_MAX_SECONDS = 5.0

log = logging.getLogger(__name__)


async def listen(settings: Settings, channel: str, callback: Callable[[], None]) -> None:
    """Call back at each notification, after each connection made, and while there is none. Runs until cancelled."""
    delay = _RETRY_FIRST_SECONDS
    while True:
        try:
            await _listen_once(settings, channel, callback)
            delay = _RETRY_FIRST_SECONDS
        except StoreUnavailable as error:
            callback()
            log.warning("not listening to the database at present: %s", error, extra={"action": "listen_lost"})
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RETRY_MAX_SECONDS)


async def _listen_once(settings: Settings, channel: str, callback: Callable[[], None]) -> None:
    with store_errors(f"listening to {channel}"):
        connection = await open_session(settings, f"listen {channel}")
        gone = asyncio.Event()
        connection.add_termination_listener(lambda _: gone.set())
        try:
            await connection.add_listener(channel, lambda *_: callback())
            callback()
            await _until_gone(connection, gone)
        finally:
            callback()  # Before the closing, which may take a while: from here on nobody listens.
            await close_quietly(connection)


async def _until_gone(connection: asyncpg.Connection[asyncpg.Record], gone: asyncio.Event) -> None:
    """Wait for the connection's end; one that no longer answers raises."""
    while not gone.is_set():
        try:
            async with asyncio.timeout(_PING_SECONDS):
                await gone.wait()
        except TimeoutError:
            await connection.execute(QUERIES["ping"], timeout=_PING_SECONDS)
