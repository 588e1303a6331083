"""From a host name to a connection that is ready for mail: connect, greeting, EHLO, STARTTLS, AUTH.

Nothing here falls back to less safety: where TLS is asked for and cannot be had, or the certificate is not right,
or a login is configured and cannot be made safely, there is no connection and the mail waits.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from typing import TYPE_CHECKING

from smtp_proxy.delivery import pins
from smtp_proxy.delivery.capabilities import Capabilities, read_ehlo
from smtp_proxy.delivery.classify import is_login_trouble
from smtp_proxy.delivery.connection import Connection, LinkLost, tls_trouble
from smtp_proxy.errors import DeliveryError

if TYPE_CHECKING:
    from smtp_proxy.delivery.reply import Reply
    from smtp_proxy.delivery.route import Route

# Between the addresses of one host name (RFC 8305 5).
_NEXT_ADDRESS_SECONDS = 0.25


class NotReady(DeliveryError):
    """The next hop cannot be used at present. `reply` is what it said, if it said anything."""

    def __init__(self, message: str, reply: Reply | None = None, *, operator: bool = False) -> None:
        super().__init__(message)
        self.reply = reply
        self.operator = operator  # somebody has to change a setting


async def dial(route: Route) -> Connection:
    """Open a connection and make it ready. Raises NotReady."""
    connection = await _connect(route)
    try:
        await _introduce(connection, route)
    except LinkLost as lost:
        raise NotReady(str(lost)) from None
    except BaseException as error:
        connection.abort(f"not ready: {error or type(error).__name__}")
        raise
    return connection


async def _connect(route: Route) -> Connection:
    loop = asyncio.get_running_loop()
    context = route.tls_context if route.tls == "implicit" else None
    try:
        async with asyncio.timeout(route.connect_timeout_seconds):
            _, connection = await loop.create_connection(
                lambda: Connection(loop),
                route.host,
                route.port,
                ssl=context,
                server_hostname=route.host if context else None,
                happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS,
            )
    except TimeoutError:
        raise NotReady(f"no connection within {route.connect_timeout_seconds:g} s") from None
    except socket.gaierror as error:
        raise NotReady(f"DNS: {route.host} has no address: {error.strerror}") from None
    except ssl.SSLError as error:
        raise NotReady(tls_trouble(error), operator=isinstance(error, ssl.SSLCertVerificationError)) from None
    except OSError as error:
        raise NotReady(f"cannot connect: {error.strerror or error}") from None
    return connection


async def _introduce(connection: Connection, route: Route) -> None:
    timeout = route.command_timeout_seconds
    if route.tls == "implicit":
        _check_pins(connection, route)
    greeting = await connection.reply(timeout)
    if greeting.code != 220:
        raise NotReady(f"the server turned us away: {greeting.code} {greeting.text}", greeting)
    await _hello(connection, route)
    if route.tls == "starttls":
        await _start_tls(connection, route)
        await _hello(connection, route)
    if route.username:
        await _log_in(connection, route)


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
        raise NotReady("the server does not offer STARTTLS, and SMARTHOST_TLS=starttls asks for it", operator=True)
    reply = await connection.command(b"STARTTLS", route.command_timeout_seconds)
    if reply.code != 220:
        raise NotReady(f"STARTTLS was refused: {reply.code} {reply.text}", reply)
    context = route.tls_context
    if context is None:
        raise NotReady("the route has no TLS settings", operator=True)
    try:
        await connection.start_tls(context, route.host, route.connect_timeout_seconds)
    except LinkLost as lost:
        raise NotReady(str(lost), operator=lost.operator) from None
    _check_pins(connection, route)


def _check_pins(connection: Connection, route: Route) -> None:
    trouble = pins.trouble(route.tls_pins, connection.peer_certificate) if route.tls_pins else None
    if trouble is not None:
        raise NotReady(trouble, operator=True)


async def _log_in(connection: Connection, route: Route) -> None:
    """AUTH PLAIN, else LOGIN (RFC 4954, RFC 4616): only where nobody can listen."""
    if route.tls == "none" and not route.is_loopback:
        raise NotReady("SMARTHOST_USERNAME is set, but SMARTHOST_TLS=none would show the password", operator=True)
    user = route.username.encode()
    password = route.password.get_secret_value().encode() if route.password else b""
    offered = connection.capabilities.auth
    timeout = route.command_timeout_seconds
    if b"\0" in user + password:
        raise NotReady("the smarthost's user name or password holds a NUL", operator=True)
    if "PLAIN" in offered:
        reply = await connection.command(b"AUTH PLAIN " + base64.b64encode(b"\0" + user + b"\0" + password), timeout)
    elif "LOGIN" in offered:
        reply = await connection.command(b"AUTH LOGIN", timeout)
        for answer in (user, password):
            if reply.code == 334:
                reply = await connection.command(base64.b64encode(answer), timeout)
    else:
        raise NotReady("the server offers neither AUTH PLAIN nor AUTH LOGIN", operator=True)
    if reply.code != 235:
        known = is_login_trouble(reply.code) or 500 <= reply.code <= 599
        raise NotReady(f"the smarthost refused our login: {reply.code} {reply.text}", reply, operator=known)
