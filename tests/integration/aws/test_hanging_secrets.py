"""A Secrets Manager that takes connections and never answers (REQ-INFRA-ECS-004)."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from fix_moto import Vault

from smtp_proxy.aws import secrets
from smtp_proxy.aws.logins import Login
from smtp_proxy.errors import SecretUnavailable

pytestmark = pytest.mark.integration

HANGS_SECONDS = 3.0
LOGINS = 64  # more than asyncio has common threads


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server whose kernel accepts, and nobody reads."""
    monkeypatch.setattr(secrets, "_READ_SECONDS", HANGS_SECONDS)
    monkeypatch.setattr(secrets, "_ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0), backlog=LOGINS) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def managed(arn: str) -> secrets.ManagedSecret:
    return secrets.managed("DB_SECRET", arn)


async def other_work_goes_on() -> None:
    """What is given to asyncio's common threads is begun at once, though all logins wait."""
    await asyncio.sleep(0.3)
    async with asyncio.timeout(HANGS_SECONDS / 3):
        assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()


async def test_logins_that_wait_hold_up_nothing_else_and_are_told_together(
    vault: Vault, hanging: str, monkeypatch: pytest.MonkeyPatch, reads: Callable[[], float]
) -> None:
    arn, before = vault.create("x"), reads()
    monkeypatch.setenv("AWS_ENDPOINT_URL", hanging)
    began = time.monotonic()
    waiting = [asyncio.create_task(Login(managed(arn)).read()) for _ in range(LOGINS)]
    await other_work_goes_on()
    assert not any(task.done() for task in waiting)
    waiting[0].cancel()
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(told[0], asyncio.CancelledError)
    assert all(isinstance(each, SecretUnavailable) for each in told[1:]), "one who gives up does not end it for others"
    assert reads() == before + 1
    assert time.monotonic() - began < 2 * HANGS_SECONDS, "not one after the other"
    monkeypatch.setenv("AWS_ENDPOINT_URL", vault.endpoint)
    monkeypatch.setattr(managed(arn), "_api", None)
    assert (await Login(managed(arn)).read()).text == "x", "the next who comes asks again"


async def test_refused_logins_that_wait_hold_up_nobody_whose_login_is_known(
    vault: Vault, hanging: str, monkeypatch: pytest.MonkeyPatch, reads: Callable[[], float]
) -> None:
    arn = vault.create("x")
    login = Login(managed(arn))
    known = await login.read()
    monkeypatch.setenv("AWS_ENDPOINT_URL", hanging)
    monkeypatch.setattr(managed(arn), "_api", None)
    before = reads()
    waiting = [asyncio.create_task(login.renew(known)) for _ in range(LOGINS)]
    await other_work_goes_on()
    async with asyncio.timeout(HANGS_SECONDS / 3):
        assert await login.read() is known
    assert not any(task.done() for task in waiting)
    assert await asyncio.gather(*waiting) == [False] * LOGINS
    assert reads() == before + 1
