"""RDS's login by IAM: a token for each connection, looked at as RDS does (REQ-INFRA-ECS-004, REQ-INFRA-ECS-010)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from fix_postgres import PostgresServer
from fix_rds import ACCESS, REGION, SECRET, Rds
from store_suite import core_envelope

from smtp_proxy.aws.database_login import database_login
from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError, StoreMisconfigured, StoreUnavailable
from smtp_proxy.store import Store, pool
from smtp_proxy.store.pool import open_session

pytestmark = pytest.mark.integration
USER = "by_token"


@pytest.fixture(autouse=True)
def role(monkeypatch: pytest.MonkeyPatch, keys: None) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("ACCESS_KEY_ID", ACCESS), ("SECRET_ACCESS_KEY", SECRET), ("REGION", REGION)):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr(pool, "_IAM_PAUSES_SECONDS", (0.01, 0.01))
    database_login.cache_clear()


@pytest.fixture
async def rds(guarded: PostgresServer, authority: Authority) -> AsyncIterator[Rds]:
    """Before a server that has the user, and trusts whoever comes from there."""
    hba = guarded.data / "pg_hba.conf"
    if USER not in hba.read_text():
        await guarded.sql(f"CREATE ROLE {USER} LOGIN SUPERUSER")
        hba.write_text(f"host all {USER} 127.0.0.1/32 trust\n" + hba.read_text())
        await guarded.sql("SELECT pg_reload_conf()")
        await asyncio.sleep(0.3)
    async with Rds(guarded.port, authority.server("127.0.0.1")).running() as running:
        yield running


def settings(rds: Rds, authority: Authority, **more: Any) -> Settings:
    values = {
        "db_host": "127.0.0.1",
        "db_port": rds.port,
        "db_name": "mail",
        "db_user": USER,
        "db_iam": True,
        "db_sslmode": "verify-full",
        "db_ca_file": authority.ca_file,
        "db_pool_size": 4,
        "db_connect_timeout_seconds": 5,
    }
    return Settings.load({**values, **more}, {})


async def test_every_connection_has_a_token_of_its_own(rds: Rds, authority: Authority) -> None:
    """The pool, the writers, LISTEN, locks: all of them, and none for what goes on after the login."""
    wanted = settings(rds, authority)
    store = await Store.connect(wanted)
    try:
        await store.accept([core_envelope()], sweep_after_seconds=15)
        assert len(rds.tokens) == 2  # the pool's first, and a writer
        for _ in range(5):
            await store.ping()
            await store.accept([core_envelope(body=b"x" * 300_000)], sweep_after_seconds=15)
        assert len(rds.tokens) == 2
        session = await open_session(wanted, "lock")
        await session.close()
        assert len(rds.tokens) == 3
        assert all(f"DBUser={USER}" in token for token in rds.tokens)
    finally:
        await store.close()
    assert rds.refused == []


async def test_an_old_token_is_never_brought(rds: Rds, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an hour after the first connection, a new one logs in all the same."""
    store = await Store.connect(settings(rds, authority))
    try:
        before = rds.tokens[-1]
        await asyncio.sleep(1.1)  # tokens tell the second
        await store._expire()
        await store.ping()
        assert rds.tokens[-1] != before
    finally:
        await store.close()


async def test_past_the_pooler_it_is_another_host_and_user(
    rds: Rds, authority: Authority, guarded: PostgresServer
) -> None:
    """A token is good for one address and one user: RDS Proxy's are not those of Postgres itself."""
    async with Rds(guarded.port, authority.server("127.0.0.1")).running() as proxy:
        wanted = settings(
            proxy, authority, db_user="app", db_pooler="transaction", db_direct_port=rds.port, db_direct_user=USER
        )
        session = await open_session(wanted, "lock")
        await session.close()
        assert (len(rds.tokens), len(proxy.tokens)) == (1, 0)
        assert f"127.0.0.1:{rds.port}/?Action=connect&DBUser={USER}" in rds.tokens[0]


async def test_one_that_is_turned_away_comes_again_and_not_for_ever(rds: Rds, authority: Authority) -> None:
    """RDS takes 200 new logins by IAM a second."""
    rds.turn_away = 2
    store = await Store.connect(settings(rds, authority))
    await store.close()
    rds.turn_away = 1000
    with pytest.raises(StoreMisconfigured, match=r"PAM authentication failed for user \"by_token\".*28000") as caught:
        await Store.connect(settings(rds, authority))
    assert rds.refused == ["too many"] * 5
    assert "X-Amz" not in str(caught.value)


async def test_a_server_that_is_not_the_one_sees_no_token(
    rds: Rds, authority: Authority, guarded: PostgresServer, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path)
    async with Rds(guarded.port, stranger.server("127.0.0.1")).running() as other:
        with pytest.raises(StoreUnavailable, match="certificate verify failed"):
            await Store.connect(settings(other, authority))
        async with Rds(guarded.port, authority.server("elsewhere.example")).running() as elsewhere:
            with pytest.raises(StoreUnavailable, match="certificate verify failed"):
                await Store.connect(settings(elsewhere, authority))
            by_name = await Store.connect(
                settings(elsewhere, authority, db_sslmode="verify-ca")
            )  # whose name is not looked at
            await by_name.close()
        assert (other.tokens, other.refused) == ([], [])


async def test_what_is_missing_is_named(rds: Rds, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(ConfigurationError, match="DB_IAM needs AWS_REGION"):
        await Store.connect(settings(rds, authority))
    monkeypatch.setenv("AWS_REGION", REGION)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    database_login.cache_clear()
    with pytest.raises(StoreUnavailable, match="DB_IAM: there are no credentials of AWS; see the task's role"):
        await Store.connect(settings(rds, authority))
    broken = settings(rds, authority, db_ca_file="/nonexistent/rds.pem")
    with pytest.raises(ConfigurationError, match=r"DB_CA_FILE: /nonexistent/rds\.pem can not be read as PEM"):
        await Store.connect(broken)
