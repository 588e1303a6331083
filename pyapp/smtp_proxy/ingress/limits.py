"""Keeps the core to the tenants' limits: who hears 450 at MAIL, and who may still log in.

Limits are read anew whenever the database says that tenants changed. Sessions are counted by the core, exactly; once a
second each process tells the others its counts through Redis, and lets in as many as are left. So within one process
a limit of sessions is exact, and over the fleet it may be passed by what comes in within that second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import TYPE_CHECKING, Final, Protocol
from uuid import UUID

from smtp_proxy.errors import StoreError, StreamUnavailable
from smtp_proxy.stream.limits import SESSIONS_LIVE_MS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from smtp_proxy.clock import Clock
    from smtp_proxy.core import Outline
    from smtp_proxy.model.tenant import Tenant
    from smtp_proxy.tenants.limits import Rulings, TenantLimiter

log = logging.getLogger(__name__)

_EXCHANGE_SECONDS: Final = 1.0
# The next message may fit sooner than was said, when the operator raised the limit elsewhere unheard.
_SHUT_MAX_SECONDS: Final = 60.0


class TenantGates(Protocol):
    """The core, as far as single tenants go."""

    def shut_tenant(self, tenant_id: bytes, seconds: float) -> None: ...

    def limit_sessions(self, limits: Sequence[tuple[bytes, int]]) -> None: ...

    def tenant_sessions(self) -> dict[bytes, int]: ...


class LimitStore(Protocol):
    """The part of `store.Store` that knows limits. May raise StoreUnavailable."""

    async def limited_tenants(self) -> list[Tenant]: ...


class SessionExchange(Protocol):
    """See `stream.limits.SharedLimits`. Raises StreamUnavailable."""

    async def exchange_sessions(self, me: str, counts: Mapping[UUID, int]) -> dict[UUID, int]: ...


class LimitDesk:
    """One per service."""

    def __init__(
        self, core: TenantGates, store: LimitStore, limiter: TenantLimiter, exchange: SessionExchange, *, clock: Clock
    ) -> None:
        self._core = core
        self._store = store
        self._limiter = limiter
        self._exchange = exchange
        self._clock = clock
        self._me = secrets.token_hex(8)
        self._changed = asyncio.Event()
        self._changed.set()
        self._shut: set[bytes] = set()
        self._known: list[Tenant] = []
        self._sessions: dict[UUID, int] = {}  # limits
        self._elsewhere: dict[UUID, int] = {}
        self._elsewhere_until = 0.0  # monotonic; then nobody knows what others have

    def changed(self) -> None:
        """Tenants may have changed; for `store.listen_credentials`."""
        self._changed.set()

    def concerns(self, tenant_ids: Sequence[bytes]) -> bool:
        """Whether mail of these tenants is to be judged."""
        return self._limiter.concerns(tenant_ids)

    async def judge(self, outlines: Sequence[Outline]) -> Rulings | None:
        """What becomes of these messages; None: all are accepted as they are. Shuts who is over its rate."""
        rulings = await self._limiter.judge(outlines)
        if rulings is not None:
            for tenant_id, seconds in rulings.shut_seconds.items():
                self._shut.add(tenant_id)
                self._core.shut_tenant(tenant_id, min(seconds, _SHUT_MAX_SECONDS))
        return rulings

    async def run(self) -> None:
        """Read what changed, and tell the others; for ever."""
        while True:
            await self._limiter.recover()
            if self._changed.is_set():
                await self.reload()
            await self.share_sessions()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EXCHANGE_SECONDS):
                    await self._changed.wait()

    async def reload(self) -> None:
        """Read the limits anew; those known stay if the store is away."""
        self._changed.clear()
        try:
            tenants = await self._store.limited_tenants()
        except StoreError as error:
            log.warning("tenants' limits can not be read: %s", error, extra={"action": "limits_unread"})
            await asyncio.sleep(_EXCHANGE_SECONDS)
            self._changed.set()
            return
        if tenants == self._known:
            return
        self._known = tenants
        self._limiter.know(tenants)
        self._sessions = {t.id: t.limits.sessions for t in tenants if t.limits.sessions is not None}
        self._limit_sessions()
        # Whoever is still over its rate will hear so at the next final dot.
        for tenant_id in self._shut:
            self._core.shut_tenant(tenant_id, 0.0)
        self._shut.clear()
        log.info("%d tenants have limits", len(tenants), extra={"action": "limits_changed", "tenants": len(tenants)})

    async def share_sessions(self) -> None:
        """Tell the others how many sessions the limited tenants have here, and learn theirs."""
        if not self._sessions:
            return
        here = self._core.tenant_sessions()
        try:
            found = await self._exchange.exchange_sessions(
                self._me, {tenant_id: here.get(tenant_id.bytes, 0) for tenant_id in self._sessions}
            )
        except StreamUnavailable:
            if self._clock.monotonic() < self._elsewhere_until:
                return
            found = {}
        else:
            self._elsewhere_until = self._clock.monotonic() + SESSIONS_LIVE_MS / 1000
        if found != self._elsewhere:
            self._elsewhere = found
            self._limit_sessions()

    def _limit_sessions(self) -> None:
        if self._elsewhere_until <= self._clock.monotonic():
            self._elsewhere = {}
        self._core.limit_sessions([
            (tenant_id.bytes, max(0, most - self._elsewhere.get(tenant_id, 0)))
            for tenant_id, most in self._sessions.items()
        ])  # fmt: skip
