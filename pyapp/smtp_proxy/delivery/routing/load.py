"""From the routes file to a planner: contexts made, secrets read, everything that can be wrong found out beforehand."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from smtp_proxy.delivery.route import SMARTHOST, Route, tls_context
from smtp_proxy.delivery.routing.file import RouteRule, RoutesFile
from smtp_proxy.delivery.routing.planner import RoutePlanner
from smtp_proxy.delivery.routing.table import RouteTable
from smtp_proxy.delivery.routing.ways import DirectMx, OneRoute, Smarthosts, Way
from smtp_proxy.delivery.token import ClientCredentials, TokenSource
from smtp_proxy.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import SecretStr

    from smtp_proxy.clock import Clock
    from smtp_proxy.delivery.mx.resolver import Resolver
    from smtp_proxy.delivery.mx.sts import StsPolicies
    from smtp_proxy.delivery.routing.planner import TenantName
    from smtp_proxy.delivery.routing.secret import SecretReference
    from smtp_proxy.stream.paces import Paces


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What ways are made of, besides the file; it outlives a reload, and so do the caches in it."""

    base: Route  # the smarthost of the settings
    resolver: Resolver
    policies: StsPolicies
    hostname: str
    clock: Clock
    tenant_name: TenantName
    paces: Paces | None = None  # of providers, over the fleet


def build(routes: RoutesFile, surroundings: Surroundings, where: str = "the routes file") -> RoutePlanner:
    """A planner of a file that has been read. Blocks a little. Raises ConfigurationError, CertificateProblem."""
    ways: dict[str, Way] = {SMARTHOST: OneRoute(surroundings.base)}
    asks_tenant = False
    for name, rule in routes.routes.items():
        way = ways[name] = _way(name, rule, surroundings, where)
        asks_tenant = asks_tenant or bool(getattr(way, "asks_tenant", False))
    table = RouteTable(routes)
    table.asks_tenant = table.asks_tenant or asks_tenant
    return RoutePlanner(table, ways, surroundings.tenant_name)


def _way(name: str, rule: RouteRule, around: Surroundings, where: str) -> Way:
    if rule.kind == "mx":
        return DirectMx(name, rule, around.base, around.resolver, around.policies, around.hostname)
    if rule.kind == "ses":
        module = importlib.import_module("smtp_proxy.delivery.routing.ses_way")
        return cast("Way", module.SesWay(name, rule, around.base, around.clock, around.paces))
    return Smarthosts(name, rule, _with_login(name, rule, around, where))


def _with_login(name: str, rule: RouteRule, around: Surroundings, where: str) -> Route:
    """The base, with what the rule logs in with."""
    if rule.password is not None:
        return replace(around.base, password=_secret(f"routes.{name}.password", rule.password, where), token=None)
    if rule.oauth is None:
        return replace(around.base, password=None, token=None)
    oauth = rule.oauth
    credentials = ClientCredentials(
        oauth.token_url,
        oauth.client_id,
        _secret(f"routes.{name}.oauth.client_secret", oauth.client_secret, where),
        oauth.scope,
        tls_context(oauth.ca_file, f"routes.{name}.oauth.ca_file"),
    )
    return replace(around.base, password=None, token=TokenSource(credentials, around.clock))


def _secret(key: str, reference: SecretReference, where: str) -> SecretStr:
    try:
        return reference.read()
    except ValueError as error:
        raise ConfigurationError(f"ROUTES_FILE={where}: {key}: {error}") from None
