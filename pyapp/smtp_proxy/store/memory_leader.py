"""Leadership of the store in memory."""

from __future__ import annotations

from typing import Self

from smtp_proxy.clock import Clock
from smtp_proxy.store.memory_mail import MemoryMail


class MemoryLeaders(MemoryMail):
    """A part of MemoryStore."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.leaders: dict[str, MemoryLeadership] = {}

    def leader(self, name: str) -> MemoryLeadership:
        return MemoryLeadership(self, name)


class MemoryLeadership:
    """Leadership among those that share one MemoryStore."""

    def __init__(self, store: MemoryLeaders, name: str) -> None:
        self.name = name
        self._store = store

    @property
    def held(self) -> bool:
        return not self._store.down and self._store.leaders.get(self.name) is self

    async def try_acquire(self) -> bool:
        await self._store.ping()
        return self._store.leaders.setdefault(self.name, self) is self

    async def release(self) -> None:
        if self._store.leaders.get(self.name) is self:
            del self._store.leaders[self.name]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.release()
