"""Waiting for a Postgres that is starting too: services come up in any order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from smtp_proxy.errors import StoreMisconfigured, StoreUnavailable
from smtp_proxy.store.store import Store

if TYPE_CHECKING:
    from smtp_proxy.config import Settings
    from smtp_proxy.telemetry.lifecycle import Lifecycle

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 1.0


async def connect_when_there(settings: Settings, purpose: str, lifecycle: Lifecycle, *, accepts: bool) -> Store | None:
    """Connect, however long that takes. None: told to stop meanwhile. `accepts`: see `Store.connect`.

    Raises:
        StoreMisconfigured, SchemaMismatch: waiting would not help.
    """
    while not lifecycle.stopping:
        try:
            return await Store.connect(settings, purpose=purpose, accepts=accepts)
        except StoreMisconfigured:
            raise
        except StoreUnavailable as error:
            log.warning("waiting for Postgres: %s", error, extra={"action": "store_away"})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_SECONDS):
                    await lifecycle.stopped()
    return None
