"""Redis's login out of Secrets Manager, while it is rotated; one server and a cluster (REQ-INFRA-ECS-010)."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fix_moto import Vault
from fix_valkey import ValkeyCluster, ValkeyServer
from redis.exceptions import RedisClusterException, RedisError

from smtp_proxy.config import Settings
from smtp_proxy.errors import StreamUnavailable
from smtp_proxy.stream.connection import Connection, stream_errors

pytestmark = pytest.mark.integration


class Guarded:
    """Servers that ask for a password, which can be changed; whoever is connected is cut."""

    def __init__(self, nodes: list[ValkeyServer], *, cluster: bool) -> None:
        self.nodes = nodes
        self.cluster = cluster
        self._password = b""

    def change(self, password: bytes) -> None:
        for node in self.nodes:
            set_password = (b"CONFIG", b"SET", b"requirepass", password)
            answer = self._command(node, set_password)
            assert answer == b"+OK\r\n", answer
        self._password = password
        for node in self.nodes:
            self._command(node, (b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes"))

    def _command(self, node: ValkeyServer, words: tuple[bytes, ...]) -> bytes:
        if not self._password:
            return node.command(*words)
        arguments = b"\r\n".join(b"$%d\r\n%s" % (len(word), word) for word in words)
        login = b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n" % (len(self._password), self._password)
        with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
            connection.sendall(login)
            assert connection.recv(100) == b"+OK\r\n"
            connection.sendall(b"*%d\r\n%s\r\n" % (len(words), arguments))
            return connection.recv(100)

    def settings(self, arn: str) -> Settings:
        url = f"redis://127.0.0.1:{self.nodes[0].port}"
        values = {"redis_url": url, "redis_secret": arn, "redis_cluster": self.cluster}
        return Settings.load(values, {})


@pytest.fixture(params=["one server", "a cluster"])
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guarded]:
    servers = ValkeyCluster(tmp_path) if request.param == "a cluster" else ValkeyServer(tmp_path)
    servers.start()
    nodes = servers.nodes if isinstance(servers, ValkeyCluster) else [servers]
    yield Guarded(nodes, cluster=isinstance(servers, ValkeyCluster))
    servers.kill_all()


@pytest.mark.parametrize("form", ['{"username": "default", "password": "%s"}', '{"auth_token": "%s"}', "%s"])
async def test_the_login_survives_a_rotation(
    vault: Vault, guarded: Guarded, form: str, reads: Callable[[], float]
) -> None:
    guarded.change(b"first")
    arn = vault.create(form % "first")
    connection, before = Connection(guarded.settings(arn)), reads()
    try:
        await connection.call("SET", "a", "1")
        assert reads() == before + 1
        guarded.change(b"second")
        vault.put(arn, form % "second")
        assert await connection.call("GET", "a") == b"1"
        assert await connection.call_each([("GET", "a"), ("GET", "a")]) == [b"1", b"1"]
        assert reads() == before + 2
    finally:
        await connection.close()


async def test_a_pipeline_finds_the_new_login_too(vault: Vault, guarded: Guarded) -> None:
    guarded.change(b"first")
    arn = vault.create("first")
    connection = Connection(guarded.settings(arn))
    try:
        assert await connection.call_each([("SET", "a", "1")]) == [True]
        guarded.change(b"second")
        vault.put(arn, "second")
        answers = [await connection.call_each([("GET", "a")]) for _ in range(4)]
        # Of a cluster, what was sent on a connection that was cut is answered with an error, and for the caller.
        assert answers[-1] == [b"1"]
        assert guarded.cluster or answers[0] == [b"1"]
    finally:
        await connection.close()


async def test_a_refused_login_is_told_without_its_value(vault: Vault, guarded: Guarded) -> None:
    guarded.change(b"first")
    connection = Connection(guarded.settings(vault.create("hush-hush")))
    try:
        with pytest.raises(StreamUnavailable) as caught:
            async with stream_errors(5):
                await connection.call("GET", "a")
        assert "hush" not in str(caught.value)
        with pytest.raises((RedisError, RedisClusterException)):
            await connection.call_each([("GET", "a")])
    finally:
        await connection.close()
