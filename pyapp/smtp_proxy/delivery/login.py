"""Logging in to a next hop: AUTH PLAIN, LOGIN (RFC 4954, RFC 4616) or XOAUTH2, and only where nobody can listen.

XOAUTH2 is what Google and Microsoft offer: the user and a bearer token in one initial response. A token that is refused
(535) may have been withdrawn before its time, so a new one is fetched and tried once.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from smtp_proxy.delivery.classify import is_login_trouble
from smtp_proxy.delivery.not_ready import NotReady
from smtp_proxy.delivery.token import NoToken

if TYPE_CHECKING:
    from smtp_proxy.delivery.connection import Connection
    from smtp_proxy.delivery.reply import Reply
    from smtp_proxy.delivery.route import Route
    from smtp_proxy.delivery.token import TokenSource


async def log_in(connection: Connection, route: Route) -> None:
    """Log in as the route says. Raises NotReady; LinkLost."""
    if route.tls in ("none", "opportunistic") and not route.is_loopback:
        text = f"{route.setting('username')} is set, but {route.setting('tls')} = {route.tls} would show the password"
        raise NotReady(text, operator=True)
    try:
        reply = await (
            _password(connection, route) if route.token is None else _xoauth2(connection, route, route.token)
        )
    except NotReady as trouble:
        if trouble.operator:
            _tell_refused(route)
        raise
    if reply.code != 235:
        known = is_login_trouble(reply.code) or 500 <= reply.code <= 599
        if known:
            _tell_refused(route)
        raise NotReady(f"the smarthost refused our login: {reply.code} {reply.text}", reply, operator=known)


def _tell_refused(route: Route) -> None:
    if route.login_refused is not None:
        route.login_refused()


async def _password(connection: Connection, route: Route) -> Reply:
    user = route.username.encode()
    password = route.password.get_secret_value().encode() if route.password else b""
    offered = connection.capabilities.auth
    timeout = route.command_timeout_seconds
    if b"\0" in user + password:
        raise NotReady(f"{route.setting('username')} or its password holds a NUL", operator=True)
    if "PLAIN" in offered:
        return await connection.command(b"AUTH PLAIN " + base64.b64encode(b"\0" + user + b"\0" + password), timeout)
    if "LOGIN" not in offered:
        raise NotReady("the server offers neither AUTH PLAIN nor AUTH LOGIN", operator=True)
    reply = await connection.command(b"AUTH LOGIN", timeout)
    for answer in (user, password):
        if reply.code == 334:
            reply = await connection.command(base64.b64encode(answer), timeout)
    return reply


async def _xoauth2(connection: Connection, route: Route, source: TokenSource) -> Reply:
    if "XOAUTH2" not in connection.capabilities.auth:
        raise NotReady("the server does not offer AUTH XOAUTH2", operator=True)
    reply = await _offer_token(connection, route, token := await _token(source))
    if reply.code == 535:
        source.forget(token)
        reply = await _offer_token(connection, route, await _token(source))
    return reply


async def _token(source: TokenSource) -> str:
    try:
        return await source.token()
    except NoToken as trouble:
        raise NotReady(str(trouble), operator=trouble.operator) from None


async def _offer_token(connection: Connection, route: Route, token: str) -> Reply:
    response = b"user=%s\x01auth=Bearer %s\x01\x01" % (route.username.encode(), token.encode())
    reply = await connection.command(b"AUTH XOAUTH2 " + base64.b64encode(response), route.command_timeout_seconds)
    if reply.code == 334:  # what is wrong, as JSON; an empty answer brings the 535
        reply = await connection.command(b"", route.command_timeout_seconds)
    return reply
