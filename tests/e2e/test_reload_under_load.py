"""Fifty reloads, good and bad, while many connections stand idle and others come, log in and go: nobody notices.

The figures are printed (`pytest -s`); what is asserted is generous, since machines differ.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from fix_dev import Dev
from tls_sessions import connected

from smtp_proxy.cli.control import ask
from smtp_proxy.errors import CertificateProblem

IDLE = 1000
PROCESSES, CLIENTS = 2, 4
RELOADS = 50
NAME = "mx.example.com"
TESTS = Path(__file__).resolve().parents[1]
_RELOAD_SECONDS_MAX = 5.0
_BREATH_SECONDS = 0.1


@pytest.mark.timeout(180)
async def test_nobody_notices(make_dev: Callable[..., Dev], tmp_path: Path) -> None:
    """REQ-INFRA-TLS-005, REQ-INFRA-TLS-013: the proof."""
    authority, folder = Authority(tmp_path), tmp_path / "certs" / NAME
    authority.pair(folder, NAME, "localhost")
    settings = (f"tls_cert_dir={folder.parent}", f"tls_default_name={NAME}", "tls_watch_seconds=0")
    dev = make_dev("--without", "worker,sink", *(part for each in settings for part in ("--set", each))).start()
    port = dev.ready["smtp"]["tls_port"]
    context = ssl.create_default_context(cafile=authority.ca_file)
    idle = [await connected(port, context, NAME) for _ in range(IDLE)]
    workers = [await at_work(dev, authority.ca_file) for _ in range(PROCESSES)]
    began = time.monotonic()
    seconds, refused = await asyncio.to_thread(reload, authority, folder, Path(dev.ready["data_dir"]))
    elapsed = time.monotonic() - began
    tallies = [await tally_of(worker) for worker in workers]
    sessions = sum(tally["sessions"] for tally in tallies)
    sys.stdout.write(
        f"\n{len(seconds)} reloads and {refused} refusals: median {statistics.median(seconds) * 1000:.1f} ms, "
        f"longest {max(seconds) * 1000:.1f} ms; {sessions / elapsed:.0f} handshakes/s beside {IDLE} idle connections\n"
    )
    assert [failure for tally in tallies for failure in tally["failures"]] == []
    assert sessions > RELOADS
    assert (len(seconds) + refused, refused) == (RELOADS, RELOADS // 5)
    assert max(seconds) < _RELOAD_SECONDS_MAX
    assert len({shown for tally in tallies for shown in tally["certificates"]}) > RELOADS // 5, "new ones were shown"
    for wire in idle:  # Not one was touched.
        assert (await wire.command(250, "NOOP")).startswith("250")
        await wire.close()


def reload(authority: Authority, folder: Path, data: Path) -> tuple[list[float], int]:
    """Another certificate each time, every fifth one expired; seconds of the good ones, and how many were refused."""
    seconds, refused = [], 0
    for number in range(RELOADS):
        good = number % 5 != 4
        authority.pair(folder, NAME, "localhost", days=1 if good else -1)
        began = time.monotonic()
        if good:
            ask(data / "control" / "smtp.sock", "reload")
            seconds.append(time.monotonic() - began)
        else:
            with pytest.raises(CertificateProblem, match="expired on"):
                ask(data / "control" / "smtp.sock", "reload")
            refused += 1
        time.sleep(_BREATH_SECONDS)
    return seconds, refused


async def at_work(dev: Dev, ca_file: Path) -> asyncio.subprocess.Process:
    """Clients in a process of their own."""
    port, user, password = dev.ready["smtp"]["tls_port"], dev.ready["user"], dev.ready["password"]
    return await asyncio.create_subprocess_exec(
        sys.executable, TESTS / "tls_sessions.py", str(port), ca_file, NAME, user, password, str(CLIENTS),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(TESTS)},
    )  # fmt: skip


async def tally_of(worker: asyncio.subprocess.Process) -> dict[str, Any]:
    out, _ = await worker.communicate(b"")  # which ends its input
    tally: dict[str, Any] = json.loads(out)
    return tally
