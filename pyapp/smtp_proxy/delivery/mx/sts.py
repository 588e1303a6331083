"""MTA-STS (RFC 8461): a domain says over HTTPS which hosts take its mail, and that only with a proven certificate.

The TXT record's id says whether the policy that we have is the latest; the policy itself is good for its max_age, so an
attacker who can make DNS or HTTPS fail takes nothing back (RFC 8461 5.1). Who can not fetch a first policy delivers as
if there were none.

Not here: reports (TLS-RPT).
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from smtp_proxy.delivery.mx.resolver import DnsTrouble
from smtp_proxy.delivery.reply import printable

if TYPE_CHECKING:
    from smtp_proxy.clock import Clock
    from smtp_proxy.delivery.mx.hosts import MailHosts
    from smtp_proxy.delivery.mx.resolver import Resolver

log = logging.getLogger(__name__)

Mode = Literal["enforce", "testing", "none"]

_POLICY_BYTES: Final = 64 * 1024  # RFC 8461 3.3 proposes that
_MOST_AGE_SECONDS: Final = 31_557_600  # RFC 8461 3.2
_FETCH_SECONDS: Final = 10.0
# After a failed fetch (RFC 8461 3.3 asks for at least five minutes), and between looks at the TXT record.
_AGAIN_SECONDS: Final = 300.0
# Between looks, however short a policy's life is.
_LEAST_SECONDS: Final = 10.0
_MOST_POLICIES: Final = 50_000
# Policy hosts that are asked at once: one that keeps us waiting for ten seconds is asked again in five minutes, so it
# takes many of them to keep others out.
_FETCHES: Final = 200
_ID = re.compile(r"[A-Za-z0-9]{1,32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """A policy. `mx`: names, or `*.` and a name, which stands for one label."""

    mode: Mode
    mx: tuple[str, ...] = ()
    max_age_seconds: int = 86_400

    def allows(self, host: str) -> bool:
        """Whether a host may take the domain's mail (RFC 8461 4.1)."""
        return any(name_matches(host, pattern) for pattern in self.mx)


class BadPolicy(ValueError):
    """Not a policy as RFC 8461 3.2 describes it."""


def name_matches(host: str, pattern: str) -> bool:
    """A name, or `*.` for exactly one label in front (RFC 8461 4.1, RFC 6125 6.4.3)."""
    host, pattern = host.rstrip(".").lower(), pattern.rstrip(".").lower()
    return host == pattern or (pattern.startswith("*.") and host.partition(".")[2] == pattern[2:])


def record_id(texts: list[bytes]) -> str | None:
    """The id of the one STSv1 record (RFC 8461 3.1); None: there is none, or more than one, or it has no id."""
    records = [text.decode("ascii", "replace") for text in texts if text.startswith(b"v=STSv1;")]
    if len(records) != 1:
        return None
    fields = dict(part.strip().partition("=")[::2] for part in records[0].split(";") if "=" in part)
    number = fields.get("id", "").strip()
    return number if _ID.fullmatch(number) else None


def read_policy(body: bytes) -> StsPolicy:
    """Understand a policy (RFC 8461 3.2). Raises BadPolicy."""
    fields: dict[str, list[str]] = {}
    for line in body.decode("utf-8", "replace").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), []).append(value.strip())
    mode = fields.get("mode", [""])[0]
    age = fields.get("max_age", [""])[0]
    if fields.get("version", [""])[0] != "STSv1" or mode not in ("enforce", "testing", "none"):
        raise BadPolicy("version or mode is missing or unknown")
    if not (age.isascii() and age.isdigit() and len(age) <= 10):
        raise BadPolicy("max_age is no number")
    names = tuple(name.lower() for name in fields.get("mx", []))
    if mode != "none" and not names:
        raise BadPolicy("no mx is named")
    return StsPolicy(cast("Mode", mode), names, min(int(age), _MOST_AGE_SECONDS))


class Fetch(Protocol):
    """How a policy is brought. Raises OSError, ValueError or TimeoutError."""

    async def __call__(self, domain: str) -> bytes: ...


@dataclass(slots=True)
class _Known:
    number: str  # the id under which it was published; "": nothing was fetched so far
    policy: StsPolicy | None
    expires_at: float
    look_at: float  # when the TXT record is due
    refresh_at: float  # when the policy is fetched anew, whatever DNS says of it


class StsPolicies:
    """The policies of all domains, kept in memory until they run out."""

    def __init__(self, resolver: Resolver, fetch: Fetch, clock: Clock) -> None:
        self._resolver = resolver
        self._fetch = fetch
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}

    async def of(self, domain: str) -> StsPolicy | None:
        """The policy that binds now; None: there is none. Never raises for what DNS or the host does."""
        known = self._known.get(domain)
        now = self._clock.monotonic()
        if known is None or now >= known.look_at:
            lock = self._locks.setdefault(domain, asyncio.Lock())
            async with lock:
                known = self._known.get(domain)
                if known is None or now >= known.look_at:
                    known = await self._look(domain, known)
            self._locks.pop(domain, None)
        return known.policy if known.policy is not None and self._clock.monotonic() < known.expires_at else None

    async def _look(self, domain: str, known: _Known | None) -> _Known:
        """Ask for the id; fetch when it is another than we know, and when half of the policy's life is over.

        Refreshed ahead, so that it never lapses for a moment, and who wants it to has to keep its host away for half
        of its life (RFC 8461 10.2). An HTTPS answer is proven, so DNS has no say in that.
        """
        number = await self._published(domain)
        now = self._clock.monotonic()
        fresh = known if known is not None and now < known.expires_at else _Known("", None, now, now, now)
        is_new = number is not None and number != fresh.number
        if is_new or (fresh.policy is not None and now >= fresh.refresh_at):
            fresh = await self._fetched(domain, number or fresh.number, fresh)
        now = self._clock.monotonic()
        fresh.look_at = now + _AGAIN_SECONDS
        if fresh.refresh_at > now:
            fresh.look_at = min(fresh.look_at, max(fresh.refresh_at, now + _LEAST_SECONDS))
        self._known[domain] = fresh
        self._known.move_to_end(domain)
        while len(self._known) > _MOST_POLICIES:
            self._known.popitem(last=False)
        return fresh

    async def _published(self, domain: str) -> str | None:
        try:
            answer = await self._resolver.ask(f"_mta-sts.{domain}", "TXT")
        except DnsTrouble:
            return None  # what is known goes on being good
        return record_id([b"".join(record.strings) for record in answer.records])  # type: ignore[attr-defined]

    async def _fetched(self, domain: str, number: str, known: _Known) -> _Known:
        try:
            policy = read_policy(await self._fetch(domain))
        except (OSError, ValueError, TimeoutError, aiohttp.ClientError) as error:
            text = printable(str(error).encode()) or type(error).__name__
            log.warning("MTA-STS policy of %s: %s", domain, text, extra={"action": "sts_fetch_failed"})
            return known
        now, age = self._clock.monotonic(), policy.max_age_seconds
        return _Known(number, policy, now + age, look_at=now, refresh_at=now + age / 2)


class PublicHosts(AbstractResolver):
    """Web servers by our own resolver, and only public ones: whoever has a domain says where its policy host is."""

    def __init__(self, hosts: MailHosts) -> None:
        self._hosts = hosts

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError, as aiohttp asks for."""
        del family
        try:
            addresses = await self._hosts.addresses(host)
        except DnsTrouble as trouble:
            raise OSError(str(trouble)) from None
        if not addresses:
            raise OSError(f"DNS: {host} has no public address")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


class HttpsFetch:
    """GET https://mta-sts.DOMAIN/.well-known/mta-sts.txt, verified, without redirects (RFC 8461 3.3)."""

    def __init__(
        self, hosts: AbstractResolver | None = None, context: ssl.SSLContext | None = None, *, port: int = 443
    ) -> None:
        self._hosts = hosts
        self._context = context or ssl.create_default_context()
        self._port = port
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, domain: str) -> bytes:
        where = f"https://mta-sts.{domain}:{self._port}/.well-known/mta-sts.txt"
        async with self._get_session().get(where, allow_redirects=False) as answer:
            if answer.status != 200:
                raise BadPolicy(f"HTTP status {answer.status}")
            if answer.content_type != "text/plain":
                raise BadPolicy(f"the content type is {answer.content_type}, not text/plain")
            body = bytearray()
            async for part in answer.content.iter_chunked(8192):
                body += part
                if len(body) > _POLICY_BYTES:
                    raise BadPolicy(f"it has more than {_POLICY_BYTES} octets")
            return bytes(body)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _get_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._context, limit=_FETCHES, resolver=self._hosts),
                timeout=aiohttp.ClientTimeout(total=_FETCH_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session
