"""The five steps of backpressure, mildest first, on one running system; and nothing acknowledged is lost by any.

1. memory full: sockets are not read; 2. a tenant over its rate: 450 for it alone; 3. too much ready: 421;
4. Postgres away: 451 and 421; 5. SIGTERM: not ready, still accepting, then no listener, 421 to the idle, DATA finished.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fix_dev import Dev
from senders import Refused, Wire

pytestmark = pytest.mark.timeout(240)

MIB = 1024 * 1024
HIGH, LOW = 60, 10
SETTINGS = {
    "smtp_max_in_flight_bytes": MIB,
    "ingress_ready_depth_high": HIGH,
    "ingress_ready_depth_low": LOW,
    "db_timeout_seconds": 3,
    "shutdown_delay_seconds": 2,
    "shutdown_timeout_seconds": 20,
}
PASSWORD = "correct horse"


@dataclass
class System:
    """`smtp-proxy dev` with two tenants, and the ledger of what it acknowledged."""

    dev: Dev
    tls: ssl.SSLContext
    acknowledged: set[str] = field(default_factory=set)
    _sent: int = 0

    async def client(self, username: str) -> Wire:
        wire = await Wire.open("127.0.0.1", self.dev.ready["smtp"]["tls_port"], self.tls)
        login = base64.b64encode(f"\0{username}\0{PASSWORD}".encode()).decode()
        await wire.command(235, f"AUTH PLAIN {login}")
        return wire

    async def submit(self, wire: Wire, size_bytes: int = 100) -> None:
        """Raises Refused with whatever was said instead of 250."""
        message_id, content = self.message(size_bytes)
        await wire.transaction("a@test.example", "b@test.example", content)
        self.acknowledged.add(message_id)

    def message(self, size_bytes: int = 100) -> tuple[str, bytes]:
        self._sent += 1
        message_id = f"<{self._sent}@five.example>"
        line = b"x" * 98 + b"\r\n"
        return message_id, f"Message-ID: {message_id}\r\n\r\n".encode() + line * (size_bytes // 100)

    async def refusal(self, wire: Wire) -> str:
        with pytest.raises(Refused) as refused:
            await self.submit(wire)
        return str(refused.value)

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(self.dev.ready["health"]["smtp"] + "/metrics", timeout=5) as answer:
            found = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.dev.ready["health"]["smtp"] + "/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:  # 503, or nobody there
            return False

    def signal(self, service: str, number: signal.Signals) -> None:
        for pid in _tree(self.dev.ready["pids"][service]):
            os.kill(pid, number)

    def arrived(self) -> bool:
        return {message["message_id"] for message in self.dev.sink()} >= self.acknowledged


def _tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _tree(int(child)))]


async def eventually(condition: Callable[[], bool], system: System, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, system.dev.tail()
        await asyncio.sleep(0.05)


@pytest.fixture
async def system(make_dev: Callable[..., Dev]) -> AsyncIterator[System]:
    options = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    dev = make_dev(*options).start()
    for tenant in ("busy", "quiet"):
        dev.command("tenant", "create", tenant)
        dev.command("credential", "create", tenant, tenant, "--password-stdin", given=f"{PASSWORD}\n")
    made = System(dev, ssl.create_default_context(cafile=dev.ready["ca_file"]))
    yield made
    for service in ("postgres", "worker"):
        made.signal(service, signal.SIGCONT)


async def test_one_after_the_other(system: System) -> None:
    for step in (memory_is_full, a_tenant_is_over_its_rate, too_much_is_ready, postgres_is_away, it_is_told_to_stop):
        await step(system)
        # What the one kept out, the next one finds let in again.
        await eventually(system.is_ready, system)
        await submits(system, 3)
    await eventually(system.arrived, system, 60)


async def submits(system: System, count: int, username: str = "quiet") -> None:
    wire = await system.client(username)
    for _ in range(count):
        await system.submit(wire)
    await wire.close()


async def memory_is_full(system: System) -> None:
    """Eight messages of 1 MiB for 1 MiB of memory, and no verdict: some wait in their sockets, none is refused."""
    clients = [await system.client("busy") for _ in range(8)]
    system.signal("postgres", signal.SIGSTOP)
    try:
        sending = [asyncio.create_task(system.submit(client, MIB)) for client in clients]
        await eventually(lambda: system.metric("smtp_core_budget_waits_total") > 0, system)
        held = [await asyncio.to_thread(system.metric, "smtp_core_bytes_in_flight") for _ in range(10)]
    finally:
        system.signal("postgres", signal.SIGCONT)
    # The budget, and at most one message and a piece for each thread and socket beyond it.
    assert max(held) <= 2 * MIB + 8 * 64 * 1024
    await asyncio.gather(*sending)
    for client in clients:
        await client.close()


async def a_tenant_is_over_its_rate(system: System) -> None:
    system.dev.command("tenant", "limits", "busy", "--messages-per-minute", "5")
    await eventually(lambda: "1 tenants have limits" in system.dev.tail(), system)
    busy, quiet = await system.client("busy"), await system.client("quiet")
    for _ in range(5):
        await system.submit(busy)
    assert (await system.refusal(busy)).startswith("450 4.7.1")
    for _ in range(20):
        await system.submit(quiet)
    again = await system.client("busy")
    with pytest.raises(Refused, match=r"^450 4\.7\.1"):
        await again.command(250, "MAIL FROM:<a@test.example>")
    assert system.metric('smtp_tenant_limited_total{action="rejected"}') == 1
    system.dev.command("tenant", "limits", "busy", "--messages-per-minute", "none")
    await eventually(lambda: "0 tenants have limits" in system.dev.tail(), system)
    await system.submit(again)
    for client in (busy, quiet, again):
        await client.close()


async def too_much_is_ready(system: System) -> None:
    """The worker stands still until the gate has closed."""
    early = await system.client("quiet")
    await eventually(system.arrived, system, 60)
    system.signal("worker", signal.SIGSTOP)
    try:
        await submits(system, HIGH + 1)
        await eventually(lambda: system.metric('smtp_gate_closed{reason="busy"}') == 1, system)
        assert (await system.refusal(early)).startswith("421 4.3.2")
        with pytest.raises(Refused, match=r"^421 4\.3\.2"):
            await system.client("quiet")
    finally:
        system.signal("worker", signal.SIGCONT)
    await eventually(lambda: system.metric('smtp_gate_closed{reason="busy"}') == 0, system)
    assert system.metric("smtp_queue_depth") <= LOW


async def postgres_is_away(system: System) -> None:
    early = await system.client("busy")
    system.signal("postgres", signal.SIGSTOP)
    try:
        assert (await system.refusal(early)).startswith("451 4.3.0")
        with pytest.raises(Refused, match=r"^451 4\.3\.0"):
            await early.command(250, "MAIL FROM:<a@test.example>")
        with pytest.raises(Refused, match=r"^421 4\.3\.0"):
            await system.client("quiet")
        assert system.metric('smtp_gate_closed{reason="store_down"}') == 1
    finally:
        system.signal("postgres", signal.SIGCONT)
    await eventually(lambda: system.metric('smtp_gate_closed{reason="store_down"}') == 0, system)
    await system.submit(early)
    await early.close()


async def it_is_told_to_stop(system: System) -> None:
    idle, writing = await system.client("quiet"), await system.client("busy")
    message_id, content = system.message()
    for code, line in ((250, "MAIL FROM:<a@test.example>"), (250, "RCPT TO:<b@test.example>"), (354, "DATA")):
        await writing.command(code, line)
    writing.writer.write(content[:50])
    pid = system.dev.ready["pids"]["smtp"]
    os.kill(pid, signal.SIGTERM)
    told = time.monotonic()
    await eventually(lambda: not system.is_ready(), system, 2)
    await submits(system, 1)  # The load balancer has not noticed yet.

    assert (await idle.reply()).startswith("421 4.3.2")
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await Wire.open("127.0.0.1", system.dev.ready["smtp"]["tls_port"], system.tls)
    writing.writer.write(content[50:] + b".\r\n")
    await writing.expect(250)
    system.acknowledged.add(message_id)
    assert (await writing.reply()).startswith("421 4.3.2")
    await asyncio.to_thread(system.dev.until_replaced, "smtp", pid)
    assert time.monotonic() - told < SETTINGS["shutdown_timeout_seconds"]
    for client in (idle, writing):
        await client.close()
