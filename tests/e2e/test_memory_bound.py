"""Large mail over many connections: what the SMTP process holds at its most is the configured budget and a constant.

The peak is the kernel's own count (VmHWM), so that no sample misses it; how fast the machine is does not matter, since
the sockets of whom the budget keeps waiting are simply not read. benches/load/memory.py is the same on a large scale.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fix_dev import Dev, until
from senders import Wire

pytestmark = pytest.mark.timeout(240)

MIB = 2**20
BUDGET, MESSAGE = 32 * MIB, 10 * MIB
CONNECTIONS, MESSAGES = 8, 32
# One message beyond the budget (the overdraft that keeps unfinished ones from waiting for each other), and one that is
# held twice while Python takes it over. All sorts of buffers fit in the quarter that no tenant gets for itself.
CONSTANT = 2 * MESSAGE


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel's count is Linux's")
@pytest.mark.parametrize("limits", [(), ("--messages-per-minute", "100000")], ids=["whole batches", "rows, by limits"])
async def test_the_budget_bounds_the_process(make_dev: Callable[..., Dev], limits: tuple[str, ...]) -> None:
    dev = make_dev("--plaintext-port", "0", "--without", "worker,sink", "--set", f"smtp_max_in_flight_bytes={BUDGET}")
    dev.start()
    if limits:
        dev.command("tenant", "limits", "dev", *limits)
        until(lambda: "1 tenants have limits" in dev.tail(), 20, dev.tail)
    port = dev.ready["smtp"]["plaintext_port"]
    await send(port, 1, 100)  # what the first message of all needs is not what is asked here
    pid = dev.ready["pids"]["smtp"]
    before = status(pid, "VmRSS")
    forget_peak(pid)
    await asyncio.gather(*(send(port, MESSAGES // CONNECTIONS, MESSAGE) for _ in range(CONNECTIONS)))
    grown = status(pid, "VmHWM") - before
    assert grown > BUDGET // 2, "else nothing was tested"
    assert grown <= BUDGET + CONSTANT, f"{grown / MIB:.0f} MiB"


async def send(port: int, messages: int, size_bytes: int) -> None:
    wire = await Wire.open("127.0.0.1", port)
    content = b"Message-ID: <large@test.example>\r\n\r\n" + (b"x" * 98 + b"\r\n") * (size_bytes // 100)
    for _ in range(messages):
        await wire.transaction("a@test.example", "b@test.example", content)
    await wire.close()


def forget_peak(pid: int) -> None:
    """VmHWM begins anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def status(pid: int, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
