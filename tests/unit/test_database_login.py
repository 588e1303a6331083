"""Tokens of RDS, and the settings that go with them. REQ-INFRA-ECS-004, REQ-INFRA-ECS-010."""

from __future__ import annotations

import base64
import gc
import hmac
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import boto3
import pytest
from fix_rds import ACCESS, REGION, SECRET, signature, wrong

from smtp_proxy.aws.database_login import DatabaseLogin
from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError
from smtp_proxy.store.roles import scram_verifier

HOST = "smtp-proxy.abcdefghijkl.eu-central-1.rds.amazonaws.com"


@pytest.fixture(autouse=True)
def role(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("ACCESS_KEY_ID", ACCESS), ("SECRET_ACCESS_KEY", SECRET), ("REGION", REGION)):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def signed_at(token: str) -> str:
    return dict(parse_qsl(urlsplit(f"https://{token}").query))["X-Amz-Date"]


async def test_a_token_is_what_boto3_would_make() -> None:
    """Without its client, whose description of RDS takes a second and 20 MB to read."""
    # A session of its own: that of the module keeps the credentials of whichever test came first.
    login, client = DatabaseLogin(), boto3.session.Session().client("rds", region_name=REGION)
    for _ in range(10):
        token = await login.token(HOST, 5432, "smtp_proxy_app")
        theirs = client.generate_db_auth_token(DBHostname=HOST, Port=5432, DBUsername="smtp_proxy_app")
        if signed_at(token) == signed_at(theirs):
            break
    assert token == theirs
    assert signature(token, "rds-db") in token
    assert SECRET not in token


async def test_tokens_are_signed_after_a_collection_of_garbage_too() -> None:
    """botocore's signer keeps no hold of its session's events: once they were collected no connection could log in."""
    login = DatabaseLogin()
    for _ in range(2):
        assert wrong(await login.token(HOST, 5432, "app"), f"{HOST}:5432", "app") == ""
        gc.collect()


async def test_a_token_is_for_one_host_one_port_one_user_and_15_minutes() -> None:
    """As tests/fix_rds.py looks at it in the place of RDS."""
    token = await DatabaseLogin().token(HOST, 5432, "app")
    assert wrong(token, f"{HOST}:5432", "app") == ""
    assert "it is for" in wrong(token, f"{HOST}:5433", "app")
    assert "user" in wrong(token, f"{HOST}:5432", "admin")
    assert wrong(token[:-1] + ("0" if token[-1] != "0" else "1"), f"{HOST}:5432", "app") == "it is not signed"
    assert wrong(token.replace(signed_at(token), "20200101T000000Z"), f"{HOST}:5432", "app") == "it is too old"


def test_a_verifier_is_what_the_rfc_works_out() -> None:
    """RFC 7677 3: the server's signature of that dialogue, with the key that is in the verifier."""
    salt = "W22ZaJ0SNY7soEsUEjb6gQ=="
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    dialogue = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s={salt},i=4096,c=biws,r={nonce}"
    verifier = scram_verifier("pencil", base64.b64decode(salt))
    assert verifier.startswith(f"SCRAM-SHA-256$4096:{salt}$")
    key = base64.b64decode(verifier.rpartition(":")[2])
    signed = base64.b64encode(hmac.digest(key, dialogue.encode(), "sha256")).decode()
    assert signed == "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert scram_verifier("pencil") != scram_verifier("pencil")


IAM = {"db_iam": True, "db_sslmode": "require"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"db_iam": True}, "DB_IAM needs DB_SSLMODE=require, verify-ca or verify-full: tokens are taken by TLS alone"),
        ({**IAM, "db_password": "hunter22"}, "DB_IAM takes the place of DB_SECRET and of DB_PASSWORD: set one of them"),
        ({**IAM, "db_secret": "name"}, "DB_IAM takes the place"),
        ({"db_ca_file": "/ca.pem", "db_sslmode": "require"}, "DB_CA_FILE needs DB_SSLMODE=verify-ca or verify-full"),
        ({"db_direct_user": "x"}, "DB_DIRECT_USER needs DB_IAM"),
        ({"migrate_login": "app"}, "MIGRATE_LOGIN and MIGRATE_PROXY_LOGIN need MIGRATE_OWNER"),
        ({"migrate_owner": "o", "migrate_proxy_login": "p"}, "MIGRATE_PROXY_SECRET go together"),
        ({"migrate_owner": "same", "migrate_login": "same"}, "roles of their own"),
        ({"migrate_owner": 'x"; DROP'}, "migrate_owner: must be lower-case letters, digits and underscores"),
    ],
)
def test_settings_that_do_not_go_together(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        Settings.load(given, {})
    assert "hunter22" not in str(raised.value)
