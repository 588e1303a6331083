"""A moto server, which answers as the API of AWS does, and the variables that a client of AWS looks at.

Import the fixtures: `from fix_moto import keys, moto, reads, vault`.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import time as wall
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest

from smtp_proxy.aws import secrets
from smtp_proxy.telemetry.metrics import REGISTRY


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@contextmanager
def serving(module: str, log: Path, path: str = "") -> Iterator[str]:
    """The address of what `python -m MODULE` serves, in a process of its own; `path` is its PYTHONPATH."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [sys.executable, "-m", module, "-H", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": path}
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
        url = f"http://127.0.0.1:{port}"
        deadline = wall.monotonic() + 60
        while wall.monotonic() < deadline and process.poll() is None:
            try:
                urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=1).close()
                break
            except (urllib.error.URLError, OSError):
                wall.sleep(0.1)
        try:
            yield url
        finally:
            process.kill()  # it has nothing to put away
            process.wait(10)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a moto server, in a process of its own."""
    with serving("moto.server", tmp_path_factory.mktemp("moto") / "log") as url:
        yield url


_numbers = itertools.count(1)


class Vault:
    """Secrets in moto's Secrets Manager."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._api = boto3.client("secretsmanager", region_name="eu-central-1", endpoint_url=endpoint)

    def create(self, text: str) -> str:
        """The ARN of a new one."""
        return str(self._api.create_secret(Name=f"smtp-proxy/{next(_numbers)}", SecretString=text)["ARN"])

    def create_empty(self) -> str:
        """The ARN of a new one without a value, as Terraform makes it."""
        return str(self._api.create_secret(Name=f"smtp-proxy/{next(_numbers)}")["ARN"])

    def put(self, arn: str, text: str) -> None:
        self._api.put_secret_value(SecretId=arn, SecretString=text)


@pytest.fixture
def vault(moto: str, keys: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vault]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    secrets.forget_all()
    yield Vault(moto)
    secrets.forget_all()


Reads = Callable[[], float]


@pytest.fixture
def reads() -> Reads:
    """How many times a secret was read in this process."""

    def count() -> float:
        results = ("changed", "same", "failed")
        return sum(REGISTRY.get_sample_value("smtp_secret_reads_total", {"result": r}) or 0 for r in results)

    return count
