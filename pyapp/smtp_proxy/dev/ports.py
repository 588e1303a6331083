"""Free ports on loopback: as asked, else as in the last run, else by chance."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

from smtp_proxy.errors import ConfigurationError

# Below the range from which systems take the local ports of outgoing connections, so that a service that is started
# again finds its port as it left it.
_FIRST, _LAST = 15_000, 29_999
_TRIES = 500


class Ports:
    """Chooses ports; each is handed out once, on this machine too until `close`."""

    def __init__(self, remembered: Mapping[str, object]) -> None:
        self._remembered = remembered
        self._taken: dict[str, int] = {}
        self._claims: list[tuple[Path, int]] = []  # file and descriptor, see _claim

    @property
    def taken(self) -> dict[str, int]:
        """What was chosen, by name."""
        return dict(self._taken)

    def choose(self, name: str, asked: int | None = None) -> int:
        """Choose the port called `name`; `asked` None or 0: any.

        Raises:
            ConfigurationError: the one asked for is in use.
        """
        if asked and (asked in self._taken.values() or not self._take(asked)):
            raise ConfigurationError(f"{name}: port {asked} is in use; choose another, or none for a free one")
        port = asked or self._last(name) or self._any()
        self._taken[name] = port
        return port

    def _last(self, name: str) -> int | None:
        port = self._remembered.get(name)
        usable = isinstance(port, int) and 0 < port < 65536 and port not in self._taken.values() and self._take(port)
        return port if usable and isinstance(port, int) else None

    def _any(self) -> int:
        for _ in range(_TRIES):
            port = random.randint(_FIRST, _LAST)  # noqa: S311 - nothing depends on its being hard to guess
            if port not in self._taken.values() and port not in self._remembered.values() and self._take(port):
                return port
        raise ConfigurationError(f"no free port found between {_FIRST} and {_LAST}")

    def _take(self, port: int) -> bool:
        return is_free(port) and self._claim(port)

    def _claim(self, port: int) -> bool:
        """Hold a lock on a file for this port: two that start at the same moment both find it free."""
        file = Path(tempfile.gettempdir()) / f"smtp-proxy-dev-{os.geteuid()}" / str(port)
        try:
            file.parent.mkdir(mode=0o700, exist_ok=True)
            claim = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return True  # no place for such files: then by luck alone
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have removed the file since we opened it.
            mine = file.exists() and file.stat().st_ino == os.fstat(claim).st_ino
        except OSError as error:
            mine = not isinstance(error, BlockingIOError)  # a file system without such locks: by luck alone
        if mine:
            self._claims.append((file, claim))
        else:
            os.close(claim)
        return mine

    def close(self) -> None:
        """Let others have them."""
        for file, claim in self._claims:
            file.unlink(missing_ok=True)
            os.close(claim)
        self._claims.clear()


def is_free(port: int) -> bool:
    """Nobody listens there, on loopback or on all addresses."""
    with socket.socket() as probe:
        # As our listeners do: connections of a previous run that linger in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
