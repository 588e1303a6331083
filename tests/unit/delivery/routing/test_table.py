"""Which rule is the stronger one."""

from __future__ import annotations

import pytest

from smtp_proxy.delivery.routing.file import RoutesFile
from smtp_proxy.delivery.routing.table import RouteTable

NAMES = ["exact", "wild", "deep", "any", "acme", "acme_exact", "by_id", "default"]
FILE = RoutesFile.model_validate(
    {
        "default": "default",
        "routes": {name: {"hosts": ["h.example"]} for name in NAMES},
        "rules": [
            {"domain": "a.example", "routes": ["exact"]},
            {"domain": "*.example", "routes": ["wild"]},
            {"domain": "*.b.example", "routes": ["deep"]},
            {"tenant": "acme", "routes": ["acme"]},
            {"tenant": "acme", "domain": "a.example", "routes": ["acme_exact"]},
            {"tenant": "id-7", "domain": "*.org", "routes": ["by_id"]},
        ],
    }
)


@pytest.mark.parametrize(
    ("domain", "tenant", "tenant_id", "route"),
    [
        ("a.example", None, "", "exact"),
        ("c.example", None, "", "wild"),
        ("x.a.example", None, "", "wild"),
        ("x.b.example", None, "", "deep"),
        ("b.example", None, "", "wild"),
        ("example", None, "", "default"),
        ("notexample", None, "", "default"),
        ("a.example", "acme", "", "acme_exact"),
        ("c.example", "acme", "", "acme"),
        ("a.example", "other", "", "exact"),
        ("x.org", "acme", "id-7", "by_id"),
        ("x.com", "acme", "id-7", "acme"),
    ],
)
def test_the_strongest_rule(domain: str, tenant: str | None, tenant_id: str, route: str) -> None:
    assert RouteTable(FILE).choose(domain, tenant, tenant_id).routes == (route,)


def test_without_a_default_the_smarthost_of_the_settings() -> None:
    assert RouteTable(RoutesFile()).choose("a.example", None).routes == ("smarthost",)
