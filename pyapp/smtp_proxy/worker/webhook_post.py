"""One event, one POST: signed, to a public address alone, and with no more patience than a setting says.

    POST /path
    Content-Type: application/json
    Smtp-Proxy-Event-Id: the same at every try
    Smtp-Proxy-Signature: t=SECONDS,v1=HEX      HMAC-SHA256 of "SECONDS.BODY" under the webhook's secret

The receiver computes the same over the bytes that came, compares in constant time, and refuses a time that is long ago.

The address is looked at after it was resolved and just before it is used, so no name leads to this network (SSRF): what
is not globally reachable is refused unless WEBHOOK_ALLOWED_NETWORKS has it. No redirect is followed, no proxy is used.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakValueDictionary

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from smtp_proxy import __version__
from smtp_proxy.errors import CertificateProblem, InvalidValue
from smtp_proxy.model.address import innermost, is_public

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtp_proxy.config import Settings
    from smtp_proxy.model.webhook import WebhookEvent

_T = TypeVar("_T")
_ANSWER_BYTES: Final = 200  # kept for whoever looks why it failed
_RESOLVER_THREADS: Final = 32
# Of these, one host's: a name server that never answers has no more, however often it is asked.
_THREADS_OF_A_HOST: Final = 2
# Calls under way, to all endpoints: each is a descriptor of the process that delivers mail.
_CALLS: Final = 256


class Refused(OSError):
    """An address that is not to be spoken to."""


class Guard(AbstractResolver):
    """Resolves names to addresses that may be spoken to."""

    def __init__(self, allowed_networks: str) -> None:
        words = (word.strip() for word in allowed_networks.split(","))
        self._allowed = [ipaddress.ip_network(word) for word in words if word]
        # Threads of its own: a name server that does not answer keeps nobody waiting but webhooks.
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, "webhook-dns")
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises Refused, OSError."""
        found = await self._ask(host, partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM))
        addresses = [(where[0], where[1], kind) for kind, _, _, _, where in found]
        permitted = [address for address in addresses if self.permits(str(address[0]))]
        if not permitted:
            raise Refused(f"{host} leads to no public address; see WEBHOOK_ALLOWED_NETWORKS")
        return [
            ResolveResult(
                hostname=host, host=str(ip), port=int(port), family=kind, proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for ip, port, kind in permitted
        ]  # fmt: skip

    async def _ask(self, host: str, ask: Callable[[], _T]) -> _T:
        """In a thread, which goes on when nobody waits any more: until it has ended, it counts as the host's."""
        turn = self._turns.setdefault(host, asyncio.Semaphore(_THREADS_OF_A_HOST))
        await turn.acquire()
        try:
            asked = asyncio.get_running_loop().run_in_executor(self._threads, ask)
        except BaseException:
            turn.release()
            raise

        def ended(found: asyncio.Future[_T]) -> None:
            turn.release()
            if not found.cancelled():
                found.exception()  # Perhaps nobody waits for it any more.

        asked.add_done_callback(ended)
        return await asyncio.shield(asked)

    async def close(self) -> None:
        """Wait for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def permits(self, address: str) -> bool:
        """Whether it is reachable from everywhere, or allowed; also what an IPv6 address carries of IPv4."""
        parsed = ipaddress.ip_address(address.partition("%")[0])
        return is_public(parsed) or any(innermost(parsed) in network for network in self._allowed)


class Poster:
    """Posts. One for a process; `close` it."""

    def __init__(self, settings: Settings) -> None:
        self._guard = Guard(settings.webhook_allowed_networks)
        self._https_only = settings.webhook_https_only
        self._turns = asyncio.Semaphore(_CALLS)  # waited for before an endpoint's patience begins
        connector = aiohttp.TCPConnector(
            resolver=self._guard, use_dns_cache=False, ssl=_context(settings), limit=0, enable_cleanup_closed=False
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=settings.webhook_timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            headers={"User-Agent": f"smtp-proxy/{__version__}", "Content-Type": "application/json"},
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
        await self._guard.close()

    async def post(self, url: str, secret: bytes, event_id: str, payload: dict[str, Any], timestamp: int) -> str:
        """Return "" when it was taken (2xx), else what went wrong in a line."""
        body = json.dumps(payload, separators=(",", ":")).encode()
        headers = {"Smtp-Proxy-Event-Id": event_id, "Smtp-Proxy-Signature": signature(secret, timestamp, body)}
        try:
            self._check(url)
            async with (
                self._turns,
                self._session.post(URL(url), data=body, headers=headers, allow_redirects=False) as answer,
            ):
                if 200 <= answer.status <= 299:
                    return ""
                text = (await answer.content.read(_ANSWER_BYTES)).decode("utf-8", "replace")
                return f"{answer.status} {' '.join(text.split())}".strip()
        except TimeoutError:
            return "no answer in time"
        except aiohttp.ClientConnectorDNSError as error:
            return str(error.os_error)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return str(error) or type(error).__name__

    def _check(self, url: str) -> None:
        """Aiohttp resolves no literal address, so these are looked at here. Raises Refused."""
        parsed = check_url(url, https_only=self._https_only)
        try:
            permitted = self._guard.permits(parsed.host or "")
        except ValueError:
            return  # a name: the guard resolves it
        if not permitted:
            raise Refused(f"{parsed.host} is no public address; see WEBHOOK_ALLOWED_NETWORKS")


def check_url(url: str, *, https_only: bool) -> URL:
    """Raise InvalidValue for what can not be an endpoint."""
    try:
        parsed = URL(url)
    except ValueError as error:
        raise InvalidValue(f"{url!r} is no URL: {error}") from None
    if parsed.scheme not in (("https",) if https_only else ("https", "http")) or not parsed.host:
        raise InvalidValue(f"{url!r}: write https://HOST/PATH (http only with WEBHOOK_HTTPS_ONLY=false)")
    if parsed.user or parsed.password or parsed.fragment:
        raise InvalidValue("a webhook's URL has no user, password or fragment: the signature says who calls")
    return parsed


def signature(secret: bytes, timestamp: int, body: bytes) -> str:
    """Return the value of Smtp-Proxy-Signature."""
    digest = hmac.new(secret, b"%d." % timestamp + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def body_of(event: WebhookEvent) -> dict[str, Any]:
    """What is told of an event; the fields are described in docs/WEBHOOKS.md."""
    occurred_at = event.occurred_at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"id": event.id, "sequence": event.sequence, "occurred_at": occurred_at, **event.payload}


def _context(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context()
        if settings.webhook_ca_file is not None:
            context.load_verify_locations(settings.webhook_ca_file)
    except (OSError, ssl.SSLError) as error:
        raise CertificateProblem(
            f"WEBHOOK_CA_FILE names {settings.webhook_ca_file}, which can not be used: {error}"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
