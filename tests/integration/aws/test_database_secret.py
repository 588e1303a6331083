"""Postgres's login out of Secrets Manager, while it is rotated (REQ-INFRA-ECS-004, REQ-INFRA-ECS-010)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from fix_guarded import change_password
from fix_moto import Vault
from fix_postgres import PostgresServer
from store_suite import core_envelope

from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError, StoreMisconfigured, StoreUnavailable
from smtp_proxy.store import Store
from smtp_proxy.store.pool import open_session

pytestmark = pytest.mark.integration


def settings(arn: str, **more: Any) -> Settings:
    values = {"db_secret": arn, "db_sslmode": "disable", "db_timeout_seconds": 5, "db_pool_size": 4}
    return Settings.load({**values, **more}, {})


async def cut_all(server: PostgresServer) -> None:
    await server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")


async def works(store: Store, seconds: float = 10.0) -> None:
    """Reads (the pool) and takes mail (the writers), at the latest after so long."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                await store.ping()
                await store.accept([core_envelope()], sweep_after_seconds=15)
            except StoreUnavailable:
                await asyncio.sleep(0.05)
            else:
                return


async def test_the_login_is_rds_json_and_survives_a_rotation(
    vault: Vault, guarded: PostgresServer, login: dict[str, Any], reads: Callable[[], float]
) -> None:
    before = reads()
    arn = vault.create(json.dumps(login))
    store = await Store.connect(settings(arn))
    try:
        await works(store)
        assert reads() == before + 1  # however many connections there are
        await change_password(guarded, "second")
        vault.put(arn, json.dumps({**login, "password": "second"}))
        await cut_all(guarded)
        await works(store)
        listening = await open_session(settings(arn), "listen")
        await listening.close()
        assert reads() == before + 2
    finally:
        await store.close()


async def test_postgres_may_have_the_new_password_before_the_secret_has(
    vault: Vault, guarded: PostgresServer, login: dict[str, Any]
) -> None:
    arn = vault.create(json.dumps(login))
    await change_password(guarded, "third")
    connecting = asyncio.create_task(Store.connect(settings(arn)))
    await asyncio.sleep(0.2)
    assert not connecting.done()
    vault.put(arn, json.dumps({**login, "password": "third"}))
    store = await connecting
    await works(store)
    await store.close()


async def test_a_wrong_secret_is_told_without_its_value_and_not_asked_for_ever(
    vault: Vault, guarded: PostgresServer, login: dict[str, Any], reads: Callable[[], float]
) -> None:
    before = reads()
    arn = vault.create(json.dumps({**login, "password": "hush-hush"}))
    with pytest.raises(StoreMisconfigured, match=r"the host of DB_SECRET: .password authentication failed") as caught:
        await Store.connect(settings(arn))
    assert "hush" not in str(caught.value)
    assert reads() - before <= 4


async def test_a_value_within_the_json_and_settings_that_are_stronger(
    vault: Vault, guarded: PostgresServer, login: dict[str, Any]
) -> None:
    arn = vault.create(json.dumps({"app": "first", "host": "nowhere.invalid"}))
    given = {"db_host": "127.0.0.1", "db_port": guarded.port, "db_name": "mail", "db_user": "app"}
    store = await Store.connect(settings(f"{arn}#app", **given))
    await works(store)
    await store.close()


@pytest.mark.parametrize(
    ("text", "reference", "said"),
    [
        ("{}", "{arn}#password", "DB_SECRET names the secret arn.*: the secret is no JSON object with the key"),
        ('{"user": "x"}', "{arn}", "DB_SECRET: the secret's JSON has no `password`"),
        ("x", "{arn}-not", "ResourceNotFoundException: there is no such secret.*see its ARN and region"),
        ('{"password": "p", "port": "many"}', "{arn}", "DB_SECRET: what the secret says can not be used: db_port$"),
    ],
)
async def test_what_is_wrong_names_the_setting_and_the_next_step(
    vault: Vault, text: str, reference: str, said: str
) -> None:
    arn = vault.create(text)
    with pytest.raises(ConfigurationError, match=said):
        await Store.connect(settings(reference.format(arn=arn)))


async def test_secrets_manager_is_away(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """That may pass, so it is waited for like Postgres itself."""
    arn = vault.create("x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreUnavailable, match=r"DB_SECRET: Secrets Manager does not give .* at present") as caught:
        await Store.connect(settings(arn))
    assert not isinstance(caught.value, StoreMisconfigured)
