"""Waiting for a Postgres that is starting too, or slow just then: services come up in any order, at any time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final, TypeVar

from smtp_proxy.errors import SchemaMismatch, SchemaMissing, StoreMisconfigured, StoreUnavailable
from smtp_proxy.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from smtp_proxy.config import Settings
    from smtp_proxy.telemetry.lifecycle import Lifecycle

T = TypeVar("T")

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 1.0
# For so long a first migration may be seen half done.
_MIGRATION_SECONDS: Final = 600.0


class ToldToStop(Exception):
    """The service was told to stop before Postgres answered."""


async def connect_when_there(settings: Settings, purpose: str, lifecycle: Lifecycle, *, accepts: bool) -> Store | None:
    """Connect, however long that takes. None: told to stop meanwhile. `accepts`: see `Store.connect`.

    With START_WAITS also for a database that lets nobody in yet, or is empty, and then until the first migration is
    through. Not for one of another release: there waiting would pass for a deployment that went well.

    Raises:
        StoreMisconfigured, SchemaMismatch: waiting would not help.
    """
    first, half_since = False, 0.0
    loop = asyncio.get_running_loop()

    async def connected() -> Store:
        nonlocal first, half_since
        try:
            return await Store.connect(settings, purpose=purpose, accepts=accepts)
        except (StoreMisconfigured, SchemaMismatch) as error:
            first = first or not isinstance(error, SchemaMismatch) or isinstance(error, SchemaMissing)
            if not (settings.start_waits and first):
                raise
            if isinstance(error, SchemaMismatch) and not isinstance(error, SchemaMissing):
                half_since = half_since or loop.time()
                if loop.time() - half_since >= _MIGRATION_SECONDS:
                    raise  # One of another release, which was not to be had at first for another reason.
            raise StoreUnavailable(str(error)) from error

    try:
        return await when_there(connected, lifecycle)
    except ToldToStop:
        return None


async def when_there(ask: Callable[[], Awaitable[T]], lifecycle: Lifecycle) -> T:
    """What `ask` returns, once Postgres answers it: a service that starts while it is slow waits as a running one does.

    Raises:
        ToldToStop: it did not answer until then.
        StoreMisconfigured, SchemaMismatch: waiting would not help.
    """
    while not lifecycle.stopping:
        try:
            return await ask()
        except StoreMisconfigured:
            raise
        except StoreUnavailable as error:
            log.warning("waiting for Postgres: %s", error, extra={"action": "store_away"})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_SECONDS):
                    await lifecycle.stopped()
    raise ToldToStop
