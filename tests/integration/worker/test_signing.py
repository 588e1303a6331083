"""Signed mail on the wire: keys made by the command, a real worker, and an independent verifier (dkimpy)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import dkim
import pytest
from fix_valkey import ValkeyServer
from mail import core_envelope
from scripted_server import ScriptedServer

from smtp_proxy.config import Settings
from smtp_proxy.store import Store
from smtp_proxy.telemetry.lifecycle import Lifecycle
from smtp_proxy.worker import worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]
BODY = b"From: a@news.example.com\r\nTo: b@rcpt.example\r\nSubject: hi\r\n\r\nHello.\r\n.dot  line\r\n\r\nno end"


async def command(settings: Settings, *arguments: str) -> str:
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "smtp_proxy", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **settings.environment()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def zone_of(printed: str) -> dict[bytes, bytes]:
    """The records that a command printed, as a resolver would answer."""
    lines = (line.partition(" 3600 IN TXT ") for line in printed.splitlines() if not line.startswith(";"))
    return {name.encode(): "".join(re.findall(r'"([^"]*)"', text)).encode() for name, _, text in lines}


async def test_what_is_on_the_wire_verifies(  # noqa: PLR0915 - the life of one domain
    db_settings: Settings, valkey: ValkeyServer, tmp_path: Path
) -> None:
    key_file, sink = tmp_path / "secret.key", ScriptedServer()
    async with sink.running():
        changes = {"smarthost_port": sink.port, "smarthost_tls": "none", "secret_key_file": key_file}
        settings = db_settings.model_copy(update={**changes, "redis_url": type(db_settings.redis_url)(valkey.url)})
        settings = settings.model_copy(update={"sweep_interval_seconds": 0.1, "retry_initial_seconds": 0.2})
        await command(settings, "secrets", "new-key", str(key_file))
        assert key_file.stat().st_mode & 0o777 == 0o600
        await command(settings, "tenant", "create", "acme")
        store = await Store.connect(settings, purpose="test")
        lifecycle = Lifecycle(2.0)
        serving = asyncio.create_task(worker.serve(settings, lifecycle))
        try:
            tenant = (await store.tenant_by_name("acme")).id

            async def next_mail() -> bytes:
                row = core_envelope(body=BODY)
                row = (row[0], tenant.bytes, *row[2:])
                known = len(sink.received)
                await store.accept([row], sweep_after_seconds=0.0)
                deadline = time.monotonic() + 20
                while len(sink.received) == known and time.monotonic() < deadline:
                    await asyncio.sleep(0.02)
                assert UUID(bytes=row[0])
                return sink.received[known].data.replace(b"\r\n..", b"\r\n.")

            assert b"DKIM-Signature" not in await next_mail()
            zone = zone_of(
                await command(settings, "domains", "add", "example.com", "--tenant", "acme", "--sign-after", "0")
            )
            assert len(zone) == 2

            await told(next_mail)
            wire = await next_mail()
            first = await signatures(wire, zone)
            assert {s[b"a"] for s in first} == {b"rsa-sha256", b"ed25519-sha256"}
            assert wire.index(b"DKIM-Signature:") == 0
            assert wire.index(b"Received:") < wire.index(b"From:")

            rotated = await command(settings, "domains", "rotate", "example.com", "--sign-after", "1.5")
            zone = zone_of(rotated)
            assert len(zone) == 4, "the old selectors stay published"
            assert {s[b"s"] for s in await signatures(await next_mail(), zone)} == {s[b"s"] for s in first}
            await asyncio.sleep(2.5)
            later = await signatures(await next_mail(), zone)
            assert not {s[b"s"] for s in later} & {s[b"s"] for s in first}
            listed = json.loads(await command(settings, "domains", "list", "--json"))
            assert [key["signs"] for key in listed] == [False, False, True, True]

            await command(settings, "secrets", "new-key", str(key_file))
            assert "sealed 4 secrets" in await command(settings, "secrets", "reseal")
            key_file.write_text(key_file.read_text().splitlines()[0] + "\n")
            assert "; signs" in await command(settings, "domains", "records", "example.com")
            await command(settings, "domains", "remove", "example.com")
            assert "[]" in await command(settings, "domains", "list", "--json")
        finally:
            lifecycle.stop("the test is over")
            await serving
            await store.close()


async def told(next_mail: Callable[[], Awaitable[bytes]]) -> None:
    """Until the worker has heard of the key."""
    for _ in range(50):
        if b"DKIM-Signature" in await next_mail():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the worker did not hear of the key")


async def signatures(wire: bytes, zone: dict[bytes, bytes]) -> list[dict[bytes, bytes]]:
    """Tags of every signature, all of which verify."""
    found = []
    for index in range(wire.count(b"DKIM-Signature:")):
        verifier = dkim.DKIM(wire)
        assert verifier.verify(idx=index, dnsfunc=lambda name, timeout=5: zone.get(name))
        found.append({k: v.strip() for k, v in dict(verifier.signature_fields).items()})
    return found
