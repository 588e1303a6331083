"""Which rule is right for a tenant and a domain. Pure.

A rule of the tenant is stronger than one of all tenants; among those, an exact domain is stronger than `*.domain`, a
longer `*.domain` than a shorter, and `*` is the weakest. Where no rule fits, the file's default counts; where there is
none, the smarthost of the settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smtp_proxy.delivery.route import SMARTHOST

if TYPE_CHECKING:
    from smtp_proxy.delivery.routing.file import DomainRule, RoutesFile


@dataclass(frozen=True, slots=True)
class Choice:
    """The routes to try, in order, and what said so."""

    routes: tuple[str, ...]
    because: str


class RouteTable:
    """Looks rules up; a handful of dictionary look-ups for each domain."""

    def __init__(self, file: RoutesFile) -> None:
        self._by_key: dict[tuple[str | None, str], DomainRule] = {(r.tenant, r.domain): r for r in file.rules}
        self._default = Choice(file.default_routes or (SMARTHOST,), "default" if file.default_routes else "settings")
        self.asks_tenant = any(rule.tenant for rule in file.rules)

    def choose(self, domain: str, tenant: str | None, tenant_id: str = "") -> Choice:
        """`domain` in A-labels; a tenant by name or, as the file may have it too, by id."""
        for owner in dict.fromkeys((tenant_id or None, tenant, None)):
            if owner is None:
                continue
            if (found := self._of(owner, domain)) is not None:
                return found
        return self._of(None, domain) or self._default

    def _of(self, owner: str | None, domain: str) -> Choice | None:
        for pattern in _patterns(domain):
            if (rule := self._by_key.get((owner, pattern))) is not None:
                whose = f" of tenant {owner}" if owner else ""
                return Choice(rule.routes, f"rule for {pattern}{whose}")
        return None


def routes_for(file: RoutesFile, tenant: str, tenant_id: str) -> list[str]:
    """The routes that mail of this tenant may be sent by: all but those that rules of other tenants alone name."""
    others = {name for rule in file.rules if rule.tenant not in (None, tenant, tenant_id) for name in rule.routes}
    own = {name for rule in file.rules if rule.tenant in (None, tenant, tenant_id) for name in rule.routes}
    names = [*file.routes, SMARTHOST]
    return [name for name in names if name not in others or name in own or name in file.default_routes]


def _patterns(domain: str) -> Iterator[str]:
    """The keys that may fit, strongest first."""
    yield domain
    rest = domain
    while rest := rest.partition(".")[2]:
        yield f"*.{rest}"
    yield "*"
