"""The password that RDS Proxy logs in with: made up by the migration, kept in a secret, in no state and in no log."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from fix_moto import Vault
from fix_postgres import PostgresServer

from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError, StoreMisconfigured
from smtp_proxy.store import Store

pytestmark = pytest.mark.integration
OWNER, PROXY = "proxied_owner", "proxied_login"


def empty_secret(vault: Vault) -> str:
    """As the stack makes it."""
    api = boto3.client("secretsmanager", region_name="eu-central-1", endpoint_url=vault.endpoint)
    number = len(api.list_secrets()["SecretList"])
    return str(api.create_secret(Name=f"proxy/{number}")["ARN"])


def said(vault: Vault, arn: str) -> dict[str, Any]:
    api = boto3.client("secretsmanager", region_name="eu-central-1", endpoint_url=vault.endpoint)
    document: dict[str, Any] = json.loads(api.get_secret_value(SecretId=arn)["SecretString"])
    return document


def migration(guarded: PostgresServer, arn: str) -> Settings:
    roles = {"migrate_owner": OWNER, "migrate_proxy_login": PROXY, "migrate_proxy_secret": arn}
    return guarded.settings("mail", **roles)


@pytest.fixture
def asks(guarded: PostgresServer) -> None:
    """The server asks this role for its password."""
    hba = guarded.data / "pg_hba.conf"
    if PROXY not in hba.read_text():
        hba.write_text(f"host all {PROXY} 127.0.0.1/32 scram-sha-256\n" + hba.read_text())
        guarded.stop()
        guarded.start()


async def test_it_is_made_up_once_and_logs_in(vault: Vault, guarded: PostgresServer, asks: None) -> None:
    arn = empty_secret(vault)
    await Store.migrate(migration(guarded, arn))
    first = said(vault, arn)
    assert first["username"] == PROXY
    assert len(first["password"]) > 40
    await Store.migrate(migration(guarded, arn))
    assert said(vault, arn) == first
    # As RDS Proxy does, and as a service might.
    at = {"db_host": "127.0.0.1", "db_port": guarded.port, "db_name": "mail", "db_sslmode": "disable"}
    store = await Store.connect(Settings.load({"db_secret": arn, **at}, {}))
    await store.close()
    # One that an operator put in is taken from the next run on, and the old one no longer.
    vault.put(arn, json.dumps({"username": PROXY, "password": "another one"}))
    await Store.migrate(migration(guarded, arn))
    store = await Store.connect(Settings.load({"db_user": PROXY, "db_password": "another one", **at}, {}))
    await store.close()
    with pytest.raises(StoreMisconfigured):
        await Store.connect(Settings.load({"db_user": PROXY, "db_password": first["password"], **at}, {}))
    assert "another one" not in guarded.log.read_text()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("no JSON", "MIGRATE_PROXY_SECRET: the secret is no JSON with `username` and `password`"),
        ('{"username": "somebody", "password": "p"}', "the secret must say username proxied_login"),
        ('{"username": "proxied_login", "password": "pä"}', "a password of printable ASCII"),
    ],
)
async def test_a_secret_of_another_kind_is_left_alone(
    vault: Vault, guarded: PostgresServer, text: str, complaint: str
) -> None:
    arn = vault.create(text)
    with pytest.raises(ConfigurationError, match=complaint):
        await Store.migrate(migration(guarded, arn))


async def test_a_secret_that_is_not_there_is_named(vault: Vault, guarded: PostgresServer) -> None:
    with pytest.raises(ConfigurationError, match=r"Secrets Manager says ResourceNotFoundException.*PutSecretValue"):
        await Store.migrate(migration(guarded, f"{vault.create('x')}-not"))
