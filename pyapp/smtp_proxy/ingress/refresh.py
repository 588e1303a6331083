"""What the ingress holds of the store's tenants and credentials, and reads again whenever the store says they changed.

Not the limits of tenants, which are told to other replicas besides (`limits`).
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import Final

from smtp_proxy.errors import StoreError

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 1.0


class Refreshed(ABC):
    """`run` reads at once, and after each `changed`."""

    def __init__(self, what: str, action: str) -> None:
        """`what` can not be read, the log says under `action`."""
        self._what = what
        self._action = action
        self._changed = asyncio.Event()
        self._changed.set()

    def changed(self) -> None:
        """It may have changed; for `store.listen_credentials`."""
        self._changed.set()

    async def run(self) -> None:
        """Keep up with the store; for ever. What was known stays while it is away."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.load()
            except StoreError as error:
                log.warning("%s can not be read: %s", self._what, error, extra={"action": self._action})
                self._changed.set()
                await asyncio.sleep(_AGAIN_SECONDS)

    @abstractmethod
    async def load(self) -> None:
        """Read once. Raises StoreError."""
