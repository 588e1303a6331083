"""Leadership: one process of many does a thing, by a session advisory lock on a connection of its own.

The lock lives exactly as long as that connection, so a dead leader is replaced as soon as Postgres notices, and a
leader that lost its connection knows (`held`) and stops.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

from smtp_proxy.store.faults import store_errors
from smtp_proxy.store.pool import open_session
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    import asyncpg

    from smtp_proxy.config import Settings

_PING_SECONDS = 5.0


class Leadership:
    """A lock by name. `async with` gives it up at the end; `held` says whether it is ours right now."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.name = name
        self._settings = settings
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._leads = False
        self._pinging: asyncio.Task[None] | None = None

    @property
    def held(self) -> bool:
        """False as soon as the connection that holds the lock is known to be gone."""
        return self._leads and self._connection is not None and not self._connection.is_closed()

    async def try_acquire(self) -> bool:
        """Take the lock if it is free; True if it is ours (already). Does not wait.

        Raises:
            StoreUnavailable: Postgres cannot be asked.
        """
        if self.held:
            return True
        with store_errors(f"taking the lead of {self.name}"):
            if self._connection is None or self._connection.is_closed():
                await self.release()
                self._connection = await open_session(self._settings, f"leader {self.name}")
            self._leads = bool(await self._connection.fetchval(QUERIES["try_lead"], self.name))
            if self._leads:
                self._pinging = asyncio.create_task(self._ping(self._connection), name=f"leader-{self.name}-ping")
        return self._leads

    async def release(self) -> None:
        """Give it up; never raises for a connection that is gone anyway."""
        self._leads = False
        connection, self._connection = self._connection, None
        if self._pinging is not None:
            self._pinging.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pinging
            self._pinging = None
        if connection is not None:
            await close_quietly(connection)

    async def _ping(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """A connection that no longer answers is closed, which turns `held` false."""
        while not connection.is_closed():
            await asyncio.sleep(_PING_SECONDS)
            try:
                await connection.execute(QUERIES["ping"], timeout=_PING_SECONDS)
            except Exception:  # whatever it is, the lock can no longer be vouched for
                connection.terminate()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.release()


async def close_quietly(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Close, politely if the server still listens."""
    try:
        await connection.close(timeout=2)
    except Exception:  # it is gone either way
        connection.terminate()
