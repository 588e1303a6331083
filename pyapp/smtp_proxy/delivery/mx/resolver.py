"""Questions to DNS: cached by their TTL, with a deadline, and with the word of the resolver on whether it validated.

The AD bit (RFC 4035 3.2.3) is worth something only if nobody can forge it on the way: it is believed of a resolver on
this machine, or where the operator says that the way to it is safe (RFC 7672 2.1, RFC 8310).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.name
import dns.rdatatype
import dns.resolver

from smtp_proxy.errors import ConfigurationError, DeliveryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dns.rdata import Rdata

    from smtp_proxy.config import Settings

_CACHED_ANSWERS: Final = 50_000
_UDP_PAYLOAD_BYTES: Final = 1232  # DNS flag day 2020: no fragments


class DnsTrouble(DeliveryError):
    """DNS gave no answer that can be relied on: a time-out, SERVFAIL, a refusal. Later it may."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What DNS says. `exists` False: there is no such name (NXDOMAIN). `secure`: the resolver validated it."""

    records: tuple[Rdata, ...] = ()
    exists: bool = True
    secure: bool = False
    alias: str | None = None  # where CNAMEs led


class Resolver:
    """A stub resolver; see the module docstring."""

    def __init__(
        self,
        servers: Sequence[tuple[str, int]] = (),
        *,
        timeout_seconds: float = 5.0,
        trust_ad: Literal["loopback", "always", "never"] = "loopback",
    ) -> None:
        self._resolver = _stub(servers, timeout_seconds)
        self.validates = trust_ad == "always" or (trust_ad == "loopback" and _all_local(self._resolver))

    @classmethod
    def of(cls, settings: Settings) -> Resolver:
        """As the settings DNS_… say. Raises ConfigurationError."""
        servers = [_server(text.strip()) for text in settings.dns_servers.split(",") if text.strip()]
        return cls(servers, timeout_seconds=settings.dns_timeout_seconds, trust_ad=settings.dns_trust_ad)

    async def ask(self, name: str, kind: str) -> Answer:
        """The records of one type. Raises DnsTrouble; that there are none is an answer."""
        try:
            question = dns.name.from_text(name)
            answer = await self._resolver.resolve(question, kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN as nothing:
            return Answer(exists=False, secure=self._nothing_is_secure(nothing))
        except (dns.resolver.NoNameservers, dns.resolver.LifetimeTimeout) as error:
            raise DnsTrouble(f"DNS: no answer for {kind} of {name}: {_short(error)}") from None
        except (dns.exception.DNSException, UnicodeError, OSError) as error:
            raise DnsTrouble(f"DNS: {kind} of {name}: {_short(error)}") from None
        alias = answer.canonical_name.to_text(omit_final_dot=True).lower()
        return Answer(
            records=tuple(answer.rrset or ()),
            secure=self.validates and bool(answer.response.flags & dns.flags.AD),
            alias=alias if answer.canonical_name != question else None,
        )

    def _nothing_is_secure(self, nothing: dns.resolver.NXDOMAIN) -> bool:
        responses = nothing.responses().values()  # type: ignore[no-untyped-call]
        return self.validates and all(response.flags & dns.flags.AD for response in responses)


def _stub(servers: Sequence[tuple[str, int]], timeout_seconds: float) -> dns.asyncresolver.Resolver:
    try:
        stub = dns.asyncresolver.Resolver(configure=not servers)
    except dns.resolver.NoResolverConfiguration:
        raise ConfigurationError("/etc/resolv.conf names no DNS server; set DNS_SERVERS=ADDRESS[:PORT]") from None
    if servers:
        stub.nameservers = [address for address, _ in servers]
        stub.nameserver_ports = dict(servers)
    stub.lifetime = timeout_seconds
    stub.timeout = max(1.0, timeout_seconds / 3)
    stub.cache = dns.resolver.LRUCache(_CACHED_ANSWERS)
    # RFC 6840 5.7: AD in the question asks for it in the answer, without all the signatures that DO would bring.
    stub.set_flags(dns.flags.RD | dns.flags.AD)
    stub.use_edns(0, 0, _UDP_PAYLOAD_BYTES)
    return stub


def _all_local(stub: dns.asyncresolver.Resolver) -> bool:
    try:
        return all(ipaddress.ip_address(str(server)).is_loopback for server in stub.nameservers)
    except ValueError:
        return False


def _server(text: str) -> tuple[str, int]:
    address, port = text, "53"
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    try:
        ipaddress.ip_address(address)
        usable = 0 < int(port) < 65536
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"DNS_SERVERS: {text!r} is no ADDRESS, ADDRESS:PORT or [IPV6]:PORT")
    return address, int(port)


def _short(error: BaseException) -> str:
    if isinstance(error, dns.resolver.LifetimeTimeout):
        return "it took too long"
    if isinstance(error, dns.resolver.NoNameservers):
        return "every server failed or refused"
    return str(error) or type(error).__name__
