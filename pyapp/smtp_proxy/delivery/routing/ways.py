"""The ways out that a routes file describes, ready for use: smarthost lists, direct delivery, providers.

A way gives the candidates for a domain and a tenant. The same candidate is the same `Route` object each time, because
pools and limits go by it.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from smtp_proxy.delivery.mx import dane
from smtp_proxy.delivery.mx.hosts import MailHosts, MxHost, Undeliverable
from smtp_proxy.delivery.mx.resolver import DnsTrouble
from smtp_proxy.delivery.mx.sts import StsPolicy
from smtp_proxy.delivery.route import Route, Wire, tls_context, unverified_context
from smtp_proxy.model.attempt import Kind, Outcome

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from smtp_proxy.delivery.mx.resolver import Resolver
    from smtp_proxy.delivery.mx.sts import StsPolicies
    from smtp_proxy.delivery.routing.file import HostRule, RouteRule

_SMTP_PORT: Final = 25
_SUBMISSION_PORT: Final = 587
_SUBMISSIONS_PORT: Final = 465
_MOST_ROUTES: Final = 20_000


class Way(Protocol):
    """One route of the file."""

    async def candidates(self, domain: str, tenant: str | None) -> Sequence[Route]:
        """Next hops in the order to try. Raises Undeliverable."""
        ...


@dataclass(frozen=True, slots=True)
class OneRoute:
    """Always the same: the smarthost of the settings."""

    route: Route

    async def candidates(self, domain: str, tenant: str | None) -> Sequence[Route]:
        del domain, tenant
        return (self.route,)


class Smarthosts:
    """A list of hosts with priorities and weights."""

    def __init__(
        self,
        name: str,
        rule: RouteRule,
        base: Route,
        chance: Callable[[], float] = random.random,
    ) -> None:
        context = context_of(name, rule)
        wire = _WIRE_OF_POLICY[rule.policy]
        usual = _SUBMISSIONS_PORT if wire == "implicit" else _SUBMISSION_PORT
        template = of_rule(name, rule, base)
        self._chance = chance
        self._hosts = [
            (
                host,
                replace(
                    template,
                    host=host.host,
                    port=host.port or rule.port or usual,
                    tls=wire,
                    tls_context=context,
                    dkim=rule.signatures_for(host.host),
                ),
            )
            for host in rule.hosts
        ]

    async def candidates(self, domain: str, tenant: str | None) -> Sequence[Route]:
        del domain, tenant
        if len(self._hosts) == 1:
            return (self._hosts[0][1],)
        return [route for _, route in sorted(self._hosts, key=lambda pair: _place(pair[0], self._chance()))]


class DirectMx:
    """To the hosts that DNS names, as safely as the domain asks: DANE before MTA-STS before the route's own policy."""

    def __init__(
        self, name: str, rule: RouteRule, base: Route, resolver: Resolver, policies: StsPolicies, hostname: str
    ) -> None:
        self._name = name
        self._rule = rule
        self._resolver = resolver
        self._policies = policies
        self._hosts = MailHosts(
            resolver,
            (hostname,),
            private_addresses=rule.private_addresses,
            address_literals=rule.address_literals,
        )
        self._template = replace(of_rule(name, rule, base), port=rule.port or _SMTP_PORT, password=None, token=None)
        self._verified = tls_context(rule.ca_file, f"routes.{name}.ca_file")
        self._any = unverified_context()
        self._own_policy = StsPolicy("enforce", rule.mx_names) if rule.mx_names else None
        self._routes: OrderedDict[Hashable, Route] = OrderedDict()

    async def candidates(self, domain: str, tenant: str | None) -> Sequence[Route]:
        del tenant
        hosts = await self._hosts.of(domain)
        policy = self._own_policy
        if policy is None and self._rule.mta_sts and not domain.startswith("["):
            policy = await self._policies.of(domain)
        routes: list[Route] = []
        trouble = ""
        for host in hosts:
            try:
                routes.append(await self._route(domain, host, policy))
            except DnsTrouble as error:
                trouble = str(error)
        if not routes and trouble:
            raise Undeliverable(
                Outcome.DEFERRED, "4.7.5", f"{trouble}, so no host is known to be the right one", Kind.TLS
            )
        left = [route for route in routes if route.dane or _allowed(policy, route.host)]
        if not left:
            text = f"MTA-STS: no MX host of {domain} is one that its policy names"
            raise Undeliverable(Outcome.DEFERRED, "4.7.5", text, Kind.TLS)
        return left

    async def _route(self, domain: str, host: MxHost, policy: StsPolicy | None) -> Route:
        """Raises DnsTrouble: whether the host has TLSA records is not known, and so it may not be asked."""
        wire, context = _WIRE_OF_POLICY[self._rule.policy], self._any
        base = host.name
        tlsa: tuple[dane.Tlsa, ...] = ()
        records: tuple[dane.Tlsa, ...] = ()
        if self._rule.dane and host.secure and self._resolver.validates:
            base, tlsa = await self._tlsa(host)
        if tlsa:
            wire, records = "starttls", tuple(record for record in tlsa if record.usable)
        if not records and policy is not None and policy.mode == "enforce":
            wire, context = "starttls", self._verified
        dane_name = base if records and base != host.name else ""
        key = (domain, host.name, wire, context is self._verified, records, dane_name)
        return self._kept(key, lambda: self._made(domain, host.name, wire, context, records, dane_name))

    async def _tlsa(self, host: MxHost) -> tuple[str, tuple[dane.Tlsa, ...]]:
        """The TLSA base domain and its records (RFC 7672 2.2.2): what the host's CNAMEs lead to, else its own name."""
        for base in filter(None, (host.alias, host.name)):
            answer = await self._resolver.ask(f"_{self._template.port}._tcp.{base}", "TLSA")
            if answer.secure and (records := dane.read_tlsa(answer)):
                return base, records
        return host.name, ()

    def _made(
        self,
        domain: str,
        host: str,
        wire: Wire,
        context: ssl.SSLContext,
        records: tuple[dane.Tlsa, ...],
        dane_name: str,
    ) -> Route:
        async def addresses() -> list[str]:
            return await self._hosts.addresses(host)

        return replace(
            self._template,
            host=host,
            domain=domain,
            tls=wire,
            tls_context=context,
            dane=records,
            dane_name=dane_name,
            addresses=addresses,
        )

    def _kept(self, key: Hashable, make: Callable[[], Route]) -> Route:
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = make()
            if len(self._routes) > _MOST_ROUTES:
                self._routes.popitem(last=False)
        else:
            self._routes.move_to_end(key)
        return route


_WIRE_OF_POLICY: Final[dict[str, Wire]] = {
    "none": "none",
    "opportunistic": "opportunistic",
    "required": "starttls",
    "verified": "starttls",
    "implicit": "implicit",
}


def context_of(name: str, rule: RouteRule) -> ssl.SSLContext | None:
    """What a smarthost's certificate must be worth. Raises CertificateProblem, which names the key of the file."""
    if rule.policy == "none":
        return None
    if rule.policy in ("opportunistic", "required"):
        return unverified_context()
    return tls_context(rule.ca_file, f"routes.{name}.ca_file")


def of_rule(name: str, rule: RouteRule, base: Route) -> Route:
    """What all candidates of a rule have in common; `base` is the smarthost of the settings, with the rule's login."""
    return replace(
        base,
        name=name,
        username=rule.username,
        dkim=rule.dkim or "all",
        tls_pins=frozenset(rule.tls_pins),
        connections=rule.connections,
        fleet_connections=rule.fleet_connections,
        messages_per_minute=rule.messages_per_minute,
        tenant_connections=rule.tenant_connections,
        tenant_messages_per_minute=rule.tenant_messages_per_minute,
        messages_per_connection=rule.messages_per_connection,
        connection_max_seconds=rule.connection_max_seconds,
        idle_seconds=rule.idle_seconds,
        connect_timeout_seconds=rule.connect_timeout_seconds,
        command_timeout_seconds=rule.command_timeout_seconds,
        data_timeout_seconds=rule.data_timeout_seconds,
    )


def _place(host: HostRule, chance: float) -> tuple[int, float]:
    """By priority, then by chance, so that the first is each as often as its weight (Efraimidis and Spirakis)."""
    return host.priority, -((chance or 1e-12) ** (1 / host.weight))


def _allowed(policy: StsPolicy | None, host: str) -> bool:
    return policy is None or policy.mode != "enforce" or policy.allows(host)
