"""Our own services as programs: `smtp-proxy serve …` with the settings of this run."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from smtp_proxy.config import CONFIG_FILE_VARIABLE, Settings, environment_name
from smtp_proxy.dev.hosts import reachable
from smtp_proxy.dev.plan import Plan
from smtp_proxy.dev.program import Program
from smtp_proxy.telemetry import logs

_PROBE_SECONDS: Final = 4.0
# A service may take its whole time-out to drain, and a little to leave.
_LEAVING_SECONDS: Final = 5.0
# A line as our console or JSON format writes it: it names its service already.
_FORMATTED: Final = re.compile(r"^(\x1b\[2m)?\d\d:\d\d:\d\d\.\d{3}|^\{")


def program(name: str, plan: Plan, say: Callable[[str], None], *, coloured: bool) -> Program:
    """Say how a service of ours is started."""
    settings, port = plan.settings, plan.health_ports[name]
    return Program(
        name=name,
        # -P: not from a folder that happens to be current.
        command=[sys.executable, "-P", "-m", "smtp_proxy", "serve", name],
        environment=environment(settings, port, os.environ, coloured=coloured),
        probe=lambda: _probe(reachable(settings.health_host), port),
        say=say,
        stop_seconds=settings.shutdown_timeout_seconds + settings.shutdown_delay_seconds + _LEAVING_SECONDS,
    )


def environment(settings: Settings, health_port: int, ours: Mapping[str, str], *, coloured: bool) -> dict[str, str]:
    """Build a service's environment: ours, without what would be a setting. Secrets travel in a file."""
    names = {environment_name(field) for field in Settings.model_fields}
    kept = {
        name: value for name, value in ours.items() if name not in names and name not in ("FORCE_COLOR", "NO_COLOR")
    }
    return {
        **kept,
        CONFIG_FILE_VARIABLE: str(settings.data_dir / "settings.toml"),
        environment_name("health_port"): str(health_port),
        "FORCE_COLOR" if coloured else "NO_COLOR": "1",
    }


def labelled(name: str, line: str, *, coloured: bool) -> str:
    """A line with its service in front, unless it has it."""
    if _FORMATTED.match(line):
        return line
    label = f"{name:<8}"
    if coloured:
        label = f"\x1b[{logs.service_colour(name)}m{label}\x1b[0m"
    moment = datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]
    moment = f"\x1b[2m{moment}\x1b[0m" if coloured else moment
    return f"{moment} {label} | {logs.one_line(line)}"


async def _probe(host: str, port: int) -> str | None:
    """Ask /readyz."""
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = await reader.read(65_536)
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        return f"its health listener does not answer: {error}"
    status, _, rest = answer.partition(b"\r\n")
    if b" 200 " in status:
        return None
    return rest.partition(b"\r\n\r\n")[2].decode("utf-8", "replace").strip() or "not ready"
