"""From a recipient's domain to the hosts that take its mail (RFC 5321 5.1, RFC 7505).

    MX records         by preference, equals in a random order
    one MX "."         the domain takes no mail: refused, 5.1.10
    no MX              the domain's own addresses
    no such domain     refused, 5.1.2
    no addresses       refused, 5.4.4
    only ourselves     refused, 5.4.6: mail would go round
    no answer          deferred, 4.4.3
    [1.2.3.4]          that address

Addresses that are not public are left out unless the route says otherwise: whoever can write MX records, or an address
literal, could otherwise make this service speak to hosts inside its own network.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from smtp_proxy.delivery.mx.resolver import Answer, DnsTrouble
from smtp_proxy.model.address import is_public
from smtp_proxy.model.attempt import Kind, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from smtp_proxy.delivery.mx.resolver import Resolver

# More are not asked: a list of a thousand hosts would keep one message busy for days.
MOST_HOSTS: Final = 16
_MOST_ADDRESSES: Final = 8


class Undeliverable(Exception):
    """There is no host to ask, now or ever. `enhanced_code` is of RFC 3463."""

    def __init__(self, outcome: Outcome, enhanced_code: str, text: str, kind: Kind = Kind.DNS) -> None:
        super().__init__(text)
        self.outcome = outcome
        self.enhanced_code = enhanced_code
        self.kind = kind


@dataclass(frozen=True, slots=True)
class MxHost:
    """One host. `secure`: DNSSEC vouches for its name (as the domain's MX) and for its addresses.

    `alias`: where the CNAMEs of its name led, for which DNSSEC vouches as well; "" where there is none.
    """

    name: str
    preference: int
    secure: bool = False
    alias: str = ""


class MailHosts:
    """Finds hosts and their addresses. `own_names`: this installation, by the names that MX records give it."""

    def __init__(
        self,
        resolver: Resolver,
        own_names: Collection[str] = (),
        *,
        private_addresses: bool = False,
        address_literals: bool = True,
        shuffle: Callable[[list[MxHost]], None] = random.shuffle,
    ) -> None:
        self._resolver = resolver
        self._own = frozenset(name.rstrip(".").lower() for name in own_names)
        self._private = private_addresses
        self._literals = address_literals
        self._shuffle = shuffle

    async def of(self, domain: str) -> list[MxHost]:
        """The hosts of a domain (A-labels) or address literal, in the order to try. Raises Undeliverable."""
        if domain.startswith("["):
            return [self._literal(domain)]
        try:
            return await self._of_domain(domain)
        except DnsTrouble as trouble:
            raise Undeliverable(Outcome.DEFERRED, "4.4.3", str(trouble)) from None

    async def addresses(self, host: str) -> list[str]:
        """Addresses of a host, IPv6 and IPv4 in turns. Raises DnsTrouble; none: it has none that may be used."""
        if _is_address(host):
            return [host] if self._private or _is_public(host) else []
        return _usable([await self._ask(host, "AAAA"), await self._ask(host, "A")], private=self._private)

    # -- details

    async def _of_domain(self, domain: str) -> list[MxHost]:
        answer = await self._resolver.ask(domain, "MX")
        if not answer.exists:
            raise Undeliverable(Outcome.REFUSED, "5.1.2", f"DNS: there is no domain {domain}")
        hosts = [
            MxHost(record.exchange.to_text(omit_final_dot=True).lower(), record.preference, answer.secure)  # type: ignore[attr-defined]
            for record in answer.records
        ]
        if [host.name for host in hosts] in ([""], ["."], ["@"]):
            raise Undeliverable(Outcome.REFUSED, "5.1.10", f"{domain} takes no mail (null MX)")
        hosts = [host for host in hosts if host.name not in ("", ".", "@")]
        if not hosts and answer.records:
            raise Undeliverable(Outcome.REFUSED, "5.4.4", f"DNS: the MX records of {domain} name no host")
        own_address = not hosts
        hosts = self._before_ourselves(domain, hosts or [MxHost(domain, 0, answer.secure)])
        return await self._reachable(domain, self._in_order(hosts), own_address=own_address)

    def _before_ourselves(self, domain: str, hosts: Sequence[MxHost]) -> list[MxHost]:
        """RFC 5321 5.1: we are among them, so only those that are preferred to us are left."""
        ours = [host.preference for host in hosts if host.name in self._own]
        left = [host for host in hosts if not ours or host.preference < min(ours)]
        if not left:
            text = f"mail for {domain} would come back to us: its best MX is this host"
            raise Undeliverable(Outcome.REFUSED, "5.4.6", text, Kind.LOCAL)
        return left

    def _in_order(self, hosts: list[MxHost]) -> list[MxHost]:
        mixed = list(dict.fromkeys(hosts))
        self._shuffle(mixed)
        return sorted(mixed, key=lambda host: host.preference)[:MOST_HOSTS]

    async def _reachable(self, domain: str, hosts: list[MxHost], *, own_address: bool) -> list[MxHost]:
        """Those that have an address, or may have: DNS that fails for one host says nothing of it."""
        found = await asyncio.gather(*(self._look(host) for host in hosts))
        left = [host for host in found if host is not None]
        if not left:
            what = f"{domain} has no MX and" if own_address else f"no MX host of {domain}"
            usable = " address" if self._private else " public address"
            text = f"DNS: {what} {'no' if own_address else 'has a'}{usable}"
            raise Undeliverable(Outcome.REFUSED, "5.4.4", text)
        return left

    async def _look(self, host: MxHost) -> MxHost | None:
        try:
            answers = await asyncio.gather(self._ask(host.name, "AAAA"), self._ask(host.name, "A"))
        except DnsTrouble:
            return MxHost(host.name, host.preference, host.secure)  # asked again when we connect
        if not _usable(answers, private=self._private):
            return None
        secure = host.secure and all(answer.secure for answer in answers)
        alias = next((answer.alias for answer in answers if answer.alias), "") if secure else ""
        return MxHost(host.name, host.preference, secure, alias)

    async def _ask(self, host: str, kind: str) -> Answer:
        return await self._resolver.ask(host, kind)

    def _literal(self, domain: str) -> MxHost:
        text = domain.strip("[]")
        text = text[5:] if text.lower().startswith("ipv6:") else text
        if not self._literals:
            raise Undeliverable(Outcome.REFUSED, "5.1.2", f"{domain}: this route takes no address literals", Kind.LOCAL)
        if not _is_address(text):
            raise Undeliverable(Outcome.REFUSED, "5.1.2", f"{domain} is no address literal", Kind.LOCAL)
        if not self._private and not _is_public(text):
            raise Undeliverable(Outcome.REFUSED, "5.4.4", f"{domain} is no public address", Kind.LOCAL)
        return MxHost(text, 0)


def _usable(answers: Sequence[Answer], *, private: bool) -> list[str]:
    families = [[str(record) for record in answer.records] for answer in answers]
    longest = max(map(len, families), default=0)
    in_turns = [family[place] for place in range(longest) for family in families if place < len(family)]
    return [address for address in in_turns if private or _is_public(address)][:_MOST_ADDRESSES]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_public(text: str) -> bool:
    return is_public(ipaddress.ip_address(text))
