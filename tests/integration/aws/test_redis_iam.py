"""ElastiCache's login by IAM, against servers that know a user whose password is the token (REQ-INFRA-ECS-010)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fix_valkey import ValkeyCluster, ValkeyServer
from redis.exceptions import RedisClusterException, RedisError

from smtp_proxy.aws import cache_login
from smtp_proxy.config import Settings
from smtp_proxy.stream.connection import Connection

pytestmark = pytest.mark.integration
USER = "smtp-proxy"


@pytest.fixture(params=["one server", "a cluster"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[ValkeyServer]]:
    servers = ValkeyCluster(tmp_path) if request.param == "a cluster" else ValkeyServer(tmp_path)
    servers.start()
    yield servers.nodes if isinstance(servers, ValkeyCluster) else [servers]
    servers.kill_all()


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The last of these is what is signed next; signing itself is looked at in tests/unit/test_cache_login.py."""
    signed = ["token-1"]
    monkeypatch.setattr(cache_login.CacheLogin, "_sign", lambda _: signed[-1])
    monkeypatch.setattr(cache_login, "_NEW_SECONDS", -1.0)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    return signed


def know(nodes: list[ValkeyServer], token: str) -> None:
    """The user has this password and no other; whoever is connected as one is cut."""
    for node in nodes:
        rights = (b"resetpass", b">" + token.encode(), b"~*", b"&*", b"+@all", b"on")
        assert node.command(b"ACL", b"SETUSER", USER.encode(), *rights) == b"+OK\r\n"
        node.command(b"CLIENT", b"KILL", b"USER", USER.encode())


def connection_to(nodes: list[ValkeyServer]) -> Connection:
    # Without TLS, which these servers have not got and the settings ask for.
    values = {"redis_url": f"redis://127.0.0.1:{nodes[0].port}", "redis_cluster": len(nodes) > 1}
    return Connection(Settings.load(values, {}).model_copy(update={"redis_iam": f"{USER}@cache"}))


async def users(nodes: list[ValkeyServer], connection: Connection) -> set[bytes]:
    """Whom the servers see at work; our own look is the default user's."""
    await connection.call("XLEN", "{email-processing}:bulk")
    listed = b"".join(node.command(b"CLIENT", b"LIST") for node in nodes)
    return {word for word in listed.split() if word.startswith(b"user=")} - {b"user=default", b"user=(superuser)"}


async def test_the_token_is_the_password(nodes: list[ValkeyServer], token: list[str]) -> None:
    know(nodes, "token-1")
    connection = connection_to(nodes)
    assert await users(nodes, connection) == {b"user=" + USER.encode()}
    await connection.close()


async def test_a_token_that_is_refused_is_signed_anew(nodes: list[ValkeyServer], token: list[str]) -> None:
    """As after 15 minutes, or when the role's keys have changed."""
    know(nodes, "token-1")
    connection = connection_to(nodes)
    await users(nodes, connection)
    token.append("token-2")
    know(nodes, "token-2")
    assert await users(nodes, connection) == {b"user=" + USER.encode()}
    know(nodes, "another")
    with pytest.raises((RedisError, RedisClusterException, OSError)) as raised:
        await users(nodes, connection)
    assert "token" not in str(raised.value)
    await connection.close()
