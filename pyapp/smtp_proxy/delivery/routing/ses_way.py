"""Amazon SES as a way out. Apart, because boto3 is slow to load and most installations have no such route."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError

from smtp_proxy.delivery.providers.ses import Ses, SesAccount, SesClient
from smtp_proxy.delivery.routing.ways import of_rule
from smtp_proxy.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smtp_proxy.clock import Clock
    from smtp_proxy.delivery.route import Route
    from smtp_proxy.delivery.routing.file import RouteRule
    from smtp_proxy.stream.paces import Paces


class SesWay:
    """One account in one region; a candidate for each tenant that SES knows, and one for all others."""

    def __init__(self, name: str, rule: RouteRule, base: Route, clock: Clock, paces: Paces | None = None) -> None:
        ses = rule.ses
        if ses is None:
            raise ConfigurationError(f"routes.{name} has no table ses")
        account = SesAccount(
            region=ses.region,
            endpoint_url=ses.endpoint_url,
            configuration_set=ses.configuration_set,
            from_arn=ses.from_arn,
            max_rate_per_second=ses.max_rate_per_second,
            connections=rule.connections,
            connect_timeout_seconds=rule.connect_timeout_seconds,
            timeout_seconds=rule.command_timeout_seconds,
        )
        try:
            client = SesClient(account, clock, paces)
        except (BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"routes.{name}.ses: {error}") from None
        host = f"email.{ses.region}.amazonaws.com"
        self._template = replace(
            of_rule(name, rule, base),
            host=host,
            dkim=rule.signatures_for(host),
            port=443,
            tls="implicit",
            username="",
            password=None,
        )
        self._others = replace(self._template, provider=Ses(client))
        self._by_tenant = {
            ours: replace(self._template, provider=Ses(client, theirs)) for ours, theirs in ses.tenants.items()
        }

    async def candidates(self, domain: str, tenant: str | None) -> Sequence[Route]:
        del domain
        return (self._by_tenant.get(tenant or "", self._others),)

    @property
    def asks_tenant(self) -> bool:
        return bool(self._by_tenant)
