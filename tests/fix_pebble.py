"""A real CA: Pebble with its DNS server (devstack/pebble.sh builds them), trusted by nobody but the tests.

Import the fixtures into a conftest: `from fix_pebble import pebble`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from cryptography import x509
from fix_postgres import free_port

from smtp_proxy.errors import IssuanceFailed

ROOT = Path(__file__).resolve().parents[1]
HARD = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20", "PEBBLE_AUTHZREUSE": "50"}
_STARTED_SECONDS = 15.0


def built(name: str) -> str:
    """Where it is. Missing, the test is skipped; in CI it fails."""
    found = ROOT / ".venv/bin" / name
    if not found.exists() and os.environ.get("CI"):
        pytest.fail(f"{name} is not built: .ci/run calls devstack/pebble.sh, which needs Go")
    if not found.exists():
        pytest.skip(f"no {name}: devstack/pebble.sh builds it, and needs Go")
    return str(found)


@dataclass
class Pebble:
    """A CA in a directory of its own; it can be killed and started again, after which it knows nobody any more."""

    directory: Path
    ca_file: Path
    http_port: int  # where it looks for HTTP-01
    environment: dict[str, str] = field(default_factory=lambda: dict(HARD))
    config: dict[str, Any] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    management_port: int = field(default_factory=free_port)
    dns_port: int = field(default_factory=free_port)
    dns_management_port: int = field(default_factory=free_port)
    dns_server: str = ""  # ADDRESS:PORT of another one; empty: its own, for `set_txt`
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/dir"

    def start(self) -> None:
        pebble = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.management_port}",
            "certificate": str(self.directory / "ca.crt"),
            "privateKey": str(self.directory / "ca.key"),
            "httpPort": self.http_port,
            "tlsPort": free_port(),
            "retryAfter": {"authz": 1, "order": 1},
            "profiles": {
                "default": {"description": "ninety days", "validityPeriod": 7_776_000},
                "shortlived": {"description": "six days", "validityPeriod": 518_400},
            },
            **self.config,
        }
        file = self.directory / "pebble.json"
        file.write_text(json.dumps({"pebble": pebble}))
        dns = self.dns_server or self._own_dns()
        self._run([built("pebble"), "-config", str(file), "-dnsserver", dns, "-strict"])
        for port in (self.port, self.management_port):
            _until_listening(port)

    def _own_dns(self) -> str:
        dns = f"127.0.0.1:{self.dns_port}"
        self._run(
            [built("pebble-challtestsrv"), "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-dns01", dns,
             "-defaultIPv6", "", "-management", f"127.0.0.1:{self.dns_management_port}"]
        )  # fmt: skip
        _until_listening(self.dns_management_port)
        return dns

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()

    def set_txt(self, name: str, value: str) -> None:
        self._dns("set-txt", {"host": f"{name}.", "value": value})

    def clear_txt(self, name: str) -> None:
        self._dns("clear-txt", {"host": f"{name}."})

    def root(self) -> str:
        """The CA's own certificate, PEM; another one at each start."""
        return self._managed("roots/0")

    def status_of(self, chain: str) -> str:
        """What the CA thinks of a certificate."""
        serial = x509.load_pem_x509_certificates(chain.encode())[0].serial_number
        return str(json.loads(self._managed(f"cert-status-by-serial/{serial:x}"))["Status"])

    def _managed(self, path: str) -> str:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        url = f"https://localhost:{self.management_port}/{path}"
        with urllib.request.urlopen(url, context=context, timeout=5) as answer:
            return str(answer.read().decode())

    def _dns(self, verb: str, body: dict[str, str]) -> None:
        url = f"http://127.0.0.1:{self.dns_management_port}/{verb}"
        request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=5):
            pass

    def _run(self, command: list[str]) -> None:
        log = (self.directory / f"{Path(command[0]).name}.log").open("ab")
        with log:
            environment = {**os.environ, **self.environment}
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))


class PebbleDns:
    """A DnsProvider whose records Pebble looks at."""

    def __init__(self, pebble: Pebble) -> None:
        self.pebble = pebble
        self.seen: list[str] = []

    def put(self, records: Mapping[str, Sequence[str]]) -> None:
        for name, texts in records.items():
            self.seen.append(name)
            for text in texts:
                self.pebble.set_txt(name, text)

    def remove(self, records: Mapping[str, Sequence[str]]) -> None:
        for name in records:
            self.pebble.clear_txt(name)


class BrokenDns(PebbleDns):
    def put(self, records: Mapping[str, Sequence[str]]) -> None:
        raise IssuanceFailed("updating the zone: REFUSED")


def prepared(directory: Path, http_port: int) -> Pebble:
    """Not yet started."""
    directory.mkdir(exist_ok=True)
    authority = Authority(directory)
    both = authority.issue("localhost").read_bytes()
    at = both.index(b"-----BEGIN PRIVATE KEY")
    (directory / "ca.crt").write_bytes(both[:at])
    (directory / "ca.key").write_bytes(both[at:])
    return Pebble(directory, authority.ca_file, http_port)


@pytest.fixture
def pebble(tmp_path: Path) -> Iterator[Pebble]:
    """Running."""
    found = prepared(tmp_path / "pebble", free_port())
    found.start()
    yield found
    found.stop()


def _until_listening(port: int) -> None:
    until = time.monotonic() + _STARTED_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on port {port}")
