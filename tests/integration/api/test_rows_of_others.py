"""The API over what other releases, and other hands, have put into Postgres."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from asgi import Answer, ask

from smtp_proxy import tenants
from smtp_proxy.api.app import make_app
from smtp_proxy.api.desk import Desk
from smtp_proxy.clock import SystemClock
from smtp_proxy.model.api_key import ApiScope
from smtp_proxy.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fix_postgres import PostgresServer

    from smtp_proxy.config import Settings

pytestmark = pytest.mark.integration
PATH = "/api/v1/suppressions"


class Api:
    """Asked as the one tenant there is."""

    def __init__(self, store: Store, key: str) -> None:
        async def health() -> int:
            return 200

        self.app = make_app(Desk(store, tenants.ApiKeyChecker(store, SystemClock())), health)
        self.key = key

    async def __call__(self, method: str, path: str) -> Answer:
        return await ask(self.app, method, path, key=self.key)


@pytest.fixture
async def api(db_settings: Settings) -> AsyncIterator[Api]:
    store = await Store.connect(db_settings, purpose="test", accepts=False)
    await store.create_tenant("acme")
    yield Api(store, (await tenants.create_api_key(store, "acme", "crm", ApiScope))[1])
    await store.close()


@pytest.mark.parametrize(
    "kept",
    [
        "mu\u0308ller@example.net",
        "müller@müller.example",
        "a@\ufb01sch.example",
        "x" * 2000 + "@y.example",
        "no address",
    ],
)
async def test_a_row_of_an_earlier_release(
    api: Api, postgres: PostgresServer, db_settings: Settings, kept: str
) -> None:
    await postgres.sql(
        "INSERT INTO suppressions (tenant_id, address, reason) SELECT id, $1, 'of before' FROM tenants",
        kept, database=db_settings.db_name,
    )  # fmt: skip
    (listed,) = (await api("GET", PATH)).json()["suppressions"]
    assert listed["address"] == kept
    one = f"{PATH}/{quote(kept, safe='')}"
    assert (await api("GET", one)).json() == listed
    if len(kept) < 100 and "@" in kept:
        put = await api("PUT", one)
        assert (put.status, put.json()) == (200, listed)
    assert (await api("DELETE", one)).status == 204
    assert (await api("GET", PATH)).json()["suppressions"] == []


async def test_a_tenant_that_is_disabled(api: Api, postgres: PostgresServer, db_settings: Settings) -> None:
    assert (await api("GET", PATH)).status == 200
    await postgres.sql("UPDATE tenants SET disabled_at = now()", database=db_settings.db_name)
    assert (await api("GET", PATH)).status == 401


async def test_a_scope_of_a_later_release_is_none(api: Api, postgres: PostgresServer, db_settings: Settings) -> None:
    await postgres.sql("UPDATE api_keys SET scopes = '{messages:read,mail:send}'", database=db_settings.db_name)
    assert (await api("GET", "/api/v1/messages")).status == 200
    assert (await api("GET", PATH)).status == 403


async def test_a_server_that_only_reads_keeps_its_connections(
    api: Api, postgres: PostgresServer, db_settings: Settings
) -> None:
    name = db_settings.db_name
    await postgres.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    backends = "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND application_name LIKE '%test%'"
    await postgres.sql(f"SELECT pg_terminate_backend(pid) FROM ({backends}) t", name)
    for _ in range(3):
        assert (await api("GET", PATH)).status in (200, 503)  # the first may meet what was ended
    last = {row["pid"] for row in await postgres.sql(backends, name)}
    for _ in range(5):
        assert (await api("GET", PATH)).status == 200
    assert {row["pid"] for row in await postgres.sql(backends, name)} == last
