"""From a host name to a connection that is ready for mail: connect, greeting, EHLO, STARTTLS, AUTH.

Nothing here falls back to less safety: where TLS is asked for and cannot be had, or the certificate is not right,
or a login is configured and cannot be made safely, there is no connection and the mail waits.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

from aiohappyeyeballs import start_connection

from smtp_proxy.delivery import pins
from smtp_proxy.delivery.capabilities import Capabilities, read_ehlo
from smtp_proxy.delivery.connection import Connection, LinkLost, tls_trouble
from smtp_proxy.delivery.login import log_in
from smtp_proxy.delivery.mx import dane
from smtp_proxy.delivery.not_ready import NotReady
from smtp_proxy.errors import DeliveryError

if TYPE_CHECKING:
    from smtp_proxy.delivery.route import Route

# Between the addresses of one host name (RFC 8305 5).
_NEXT_ADDRESS_SECONDS = 0.25


async def dial(route: Route) -> Connection:
    """Open a connection and make it ready. Raises NotReady."""
    try:
        return await _dial(route)
    except _TlsFailed as failed:
        # RFC 7435 4.1: who would have sent in clear anyway does so to a server whose TLS is broken.
        if route.tls != "opportunistic":
            raise NotReady(str(failed), operator=failed.operator) from None
        return await _dial(route, in_clear=True)


class _TlsFailed(NotReady):
    """STARTTLS was agreed on, and then there was no TLS."""


async def _dial(route: Route, *, in_clear: bool = False) -> Connection:
    connection = await _connect(route)
    try:
        await _introduce(connection, route, in_clear=in_clear)
    except LinkLost as lost:
        raise NotReady(str(lost)) from None
    except BaseException as error:
        connection.abort(f"not ready: {error or type(error).__name__}")
        raise
    return connection


async def _connect(route: Route) -> Connection:
    if route.addresses is None:
        return await _connect_to(route, route.host)
    try:
        async with asyncio.timeout(route.connect_timeout_seconds):
            addresses = await route.addresses()
    except TimeoutError:
        raise NotReady(f"DNS: no address of {route.host} in time") from None
    except DeliveryError as trouble:
        raise NotReady(str(trouble)) from None
    refusal = NotReady(f"DNS: {route.host} has no address that may be used")
    for address in addresses:
        try:
            return await _connect_to(route, address)
        except NotReady as trouble:
            refusal = trouble
    raise refusal


async def _connect_to(route: Route, host: str) -> Connection:
    loop = asyncio.get_running_loop()
    context = route.tls_context if route.tls == "implicit" else None
    try:
        async with asyncio.timeout(route.connect_timeout_seconds):
            # Not by create_connection itself, which tries one address after the other on uvloop.
            addresses = await loop.getaddrinfo(host, route.port, type=socket.SOCK_STREAM)
            sock = await start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS)
            try:
                _, connection = await loop.create_connection(
                    lambda: Connection(loop), sock=sock, ssl=context, server_hostname=route.host if context else None
                )
            except BaseException:
                sock.close()
                raise
    except TimeoutError:
        raise NotReady(f"no connection within {route.connect_timeout_seconds:g} s") from None
    except socket.gaierror as error:
        raise NotReady(f"DNS: {host} has no address: {error.strerror}") from None
    except ssl.SSLError as error:
        raise NotReady(tls_trouble(error), operator=isinstance(error, ssl.SSLCertVerificationError)) from None
    except OSError as error:
        raise NotReady(f"cannot connect: {error.strerror or error}") from None
    return connection


async def _introduce(connection: Connection, route: Route, *, in_clear: bool) -> None:
    timeout = route.command_timeout_seconds
    if route.tls == "implicit":
        _check_pins(connection, route)
    greeting = await connection.reply(timeout)
    if greeting.code != 220:
        raise NotReady(f"the server turned us away: {greeting.code} {greeting.text}", greeting)
    await _hello(connection, route)
    offered = connection.capabilities.starttls
    if route.tls == "starttls" or (route.tls == "opportunistic" and offered and not in_clear):
        await _start_tls(connection, route)
        await _hello(connection, route)
    if route.username:
        await log_in(connection, route)


async def _hello(connection: Connection, route: Route) -> None:
    name = route.client_name.encode("idna" if not route.client_name.isascii() else "ascii")
    reply = await connection.command(b"EHLO " + name, route.command_timeout_seconds)
    if reply.code == 250:
        connection.capabilities = read_ehlo(reply)
        return
    # RFC 5321 3.2: a server without extensions answers 500 or 502; whoever needs none of them may still use it.
    if 500 <= reply.code <= 504 and route.tls != "starttls" and not route.username:
        reply = await connection.command(b"HELO " + name, route.command_timeout_seconds)
        if reply.code == 250:
            connection.capabilities = Capabilities()
            return
    raise NotReady(f"EHLO was refused: {reply.code} {reply.text}", reply)


async def _start_tls(connection: Connection, route: Route) -> None:
    if not connection.capabilities.starttls:
        raise NotReady(f"TLS: the server does not offer STARTTLS, and {_asks(route)} asks for it", operator=True)
    reply = await connection.command(b"STARTTLS", route.command_timeout_seconds)
    if reply.code != 220:
        if route.tls == "opportunistic":
            return
        raise NotReady(f"STARTTLS was refused: {reply.code} {reply.text}", reply)
    context = route.tls_context
    if context is None:
        raise NotReady("the route has no TLS settings", operator=True)
    try:
        await connection.start_tls(context, route.dane_name or route.host, route.connect_timeout_seconds)
    except LinkLost as lost:
        raise _TlsFailed(str(lost), operator=lost.operator) from None
    _check_pins(connection, route)


def _check_pins(connection: Connection, route: Route) -> None:
    """What the handshake itself does not look at: pinned keys, and TLSA records."""
    trouble = (
        pins.trouble(route.tls_pins, connection.peer_certificate, route.setting("tls_pins")) if route.tls_pins else None
    )
    if trouble is None and route.dane:
        names = dict.fromkeys(filter(None, (route.dane_name, route.host, route.domain)))
        trouble = dane.trouble(route.dane, connection.peer_chain, tuple(names))
    if trouble is not None:
        raise NotReady(trouble, operator=True)


def _asks(route: Route) -> str:
    return "SMARTHOST_TLS=starttls" if route.name == "smarthost" else f"the route {route.name}"
