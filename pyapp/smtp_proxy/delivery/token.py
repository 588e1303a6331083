"""Access tokens by client credentials (RFC 6749 4.4): one in memory, fetched anew shortly before it runs out."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp

from smtp_proxy.delivery.reply import printable
from smtp_proxy.errors import DeliveryError

if TYPE_CHECKING:
    import ssl

    from pydantic import SecretStr

    from smtp_proxy.clock import Clock

_FETCH_SECONDS: Final = 20.0
_ANSWER_BYTES: Final = 64 * 1024
_UNSTATED_SECONDS: Final = 300.0  # the answer need not say how long it is good (RFC 6749 5.1)
# So long before its end a token is no longer used, or after nine tenths of a short life.
_MARGIN_SECONDS: Final = 120.0
# After a failure nobody asks again at once: the token service is not ours to flood.
_PAUSE_SECONDS: Final = 5.0


class NoToken(DeliveryError):
    """The token service gave none. `operator`: somebody has to change a setting."""

    def __init__(self, message: str, *, operator: bool = False) -> None:
        super().__init__(message)
        self.operator = operator


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """Who asks, where, and for what."""

    token_url: str
    client_id: str
    client_secret: SecretStr
    scope: str = ""
    tls_context: ssl.SSLContext | None = None


class TokenSource:
    """Fetches and keeps the token of one client. Callers that come at the same time share one request."""

    def __init__(self, credentials: ClientCredentials, clock: Clock) -> None:
        self._credentials = credentials
        self._clock = clock
        self._token = ""
        self._good_until = 0.0
        self._failure: NoToken | None = None
        self._failed_until = 0.0
        self._lock = asyncio.Lock()

    async def token(self) -> str:
        """A token that is good for a while still. Raises NoToken."""
        async with self._lock:
            now = self._clock.monotonic()
            if self._token and now < self._good_until:
                return self._token
            if self._failure is not None and now < self._failed_until:
                raise NoToken(str(self._failure), operator=self._failure.operator)
            try:
                self._token, seconds = await self._fetch()
            except NoToken as failure:
                self._failure, self._failed_until = failure, self._clock.monotonic() + _PAUSE_SECONDS
                raise
            self._good_until = now + max(seconds - _MARGIN_SECONDS, seconds * 0.9 if seconds < _MARGIN_SECONDS else 0)
            return self._token

    def forget(self, token: str) -> None:
        """The server refused it. One that was fetched since is kept."""
        if token == self._token:
            self._token = ""

    async def _fetch(self) -> tuple[str, float]:
        asked = self._credentials
        form = {"grant_type": "client_credentials", "client_id": asked.client_id}
        form["client_secret"] = asked.client_secret.get_secret_value()
        if asked.scope:
            form["scope"] = asked.scope
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_FETCH_SECONDS)) as session,
                session.post(
                    asked.token_url,
                    data=form,
                    ssl=asked.tls_context or True,
                    allow_redirects=False,
                    headers={"Accept": "application/json"},
                ) as answer,
            ):
                return _read(answer.status, await answer.content.read(_ANSWER_BYTES))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            text = printable(str(error).encode()) or type(error).__name__
            raise NoToken(f"OAuth: no token from {asked.token_url}: {text}") from None


def _read(status: int, body: bytes) -> tuple[str, float]:
    """The token and its life in seconds. Raises NoToken, which holds nothing of a token."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise NoToken(f"OAuth: HTTP {status}, and the answer is no JSON object", operator=400 <= status < 500)
    token = answer.get("access_token")
    if status != 200 or not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        said = printable(str(answer.get("error_description") or answer.get("error") or "no access_token").encode(), 200)
        raise NoToken(f"OAuth: HTTP {status}: {said}", operator=400 <= status < 500)
    try:
        seconds = float(answer.get("expires_in", _UNSTATED_SECONDS))
    except (TypeError, ValueError):
        seconds = _UNSTATED_SECONDS
    return token, max(seconds, 1.0)
