"""Tokens of ElastiCache: what is signed, and when anew. REQ-INFRA-ECS-004, REQ-INFRA-ECS-010."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from fix_rds import ACCESS, SECRET, signature

from smtp_proxy.aws.cache_login import CacheLogin, cache_login
from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError, SecretUnavailable


@pytest.fixture(autouse=True)
def role(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_token_is_a_presigned_request() -> None:
    login = cache_login(Settings.load({"redis_iam": "smtp-proxy@mail-cache", "redis_url": "rediss://c:6379"}, {}))
    assert login is not None
    token = await login.token()
    said = dict(parse_qsl(urlsplit(f"https://{token}").query))
    assert token.startswith("mail-cache/?")
    assert (login.user, said["Action"], said["User"]) == ("smtp-proxy", "connect", "smtp-proxy")
    assert said["X-Amz-Expires"] == "900"
    assert said["X-Amz-Signature"] == signature(token, "elasticache")
    assert SECRET not in token


async def test_the_token_of_a_role_says_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the session")
    token = await CacheLogin("smtp-proxy", "mail-cache").token()
    said = dict(parse_qsl(urlsplit(f"https://{token}").query))
    assert said["X-Amz-Security-Token"] == "the session"
    assert said["X-Amz-Signature"] == signature(token, "elasticache")


async def test_one_token_serves_ten_minutes_and_a_refused_one_no_longer() -> None:
    clock = Clock()
    login = CacheLogin("u", "c", monotonic=clock)
    signed: list[float] = []
    as_it_is = login._sign

    def sign() -> str:
        signed.append(clock.now)
        return as_it_is()

    login._sign = sign  # type: ignore[method-assign]
    await login.token()
    assert not await login.renew(), "a new one that is refused is not refused for its age"
    clock.now += 599
    await login.token()
    assert signed == [1000.0]
    clock.now += 1
    await login.token()
    assert signed == [1000.0, 1600.0]
    clock.now += 10
    assert await login.renew()
    await login.token()
    assert signed == [1000.0, 1600.0, 1610.0]


async def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(ConfigurationError, match="REDIS_IAM needs AWS_REGION"):
        cache_login(Settings.load({"redis_iam": "u@c", "redis_url": "rediss://c:6379"}, {}))
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(SecretUnavailable, match="REDIS_IAM: there are no credentials of AWS; see the task's role"):
        await CacheLogin("u", "c").token()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"redis_iam": "smtp-proxy"}, "redis_iam: must be USER@CACHE"),
        ({"redis_iam": "Smtp@Cache"}, "redis_iam.*lower case"),
        ({"redis_iam": "u@c"}, "REDIS_IAM needs a REDIS_URL that begins with rediss://"),
        ({"redis_iam": "u@c", "redis_url": "rediss://:hunter22@c:6379"}, "REDIS_IAM takes the place of REDIS_SECRET"),
        ({"redis_iam": "u@c", "redis_url": "rediss://c:6379", "redis_secret": "name"}, "REDIS_IAM takes the place"),
    ],
)
def test_settings_that_do_not_go_together(given: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        Settings.load(given, {})
    assert "hunter22" not in str(raised.value)
