"""What becomes of each message of a limited tenant: by its rate over the whole fleet, or, without Redis, by our own.

A batch without a limited tenant asks nobody. One with some asks Redis once, and no longer than
`tenant_limit_timeout_seconds`; if Redis does not answer, the process judges by what itself has let through, until
Redis answers again (`recover`). No message is lost or kept waiting over that: it is only counted less exactly.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from smtp_proxy.core import ID, RECIPIENT_COUNT, SIZE_BYTES, TENANT_ID
from smtp_proxy.errors import StreamUnavailable
from smtp_proxy.model.limits import AtLimit, Placement
from smtp_proxy.stream.limits import RateRequest
from smtp_proxy.telemetry.metrics import TENANT_LIMITED
from smtp_proxy.tenants.held import HeldRoom
from smtp_proxy.tenants.rates import Ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smtp_proxy.clock import Clock
    from smtp_proxy.core import Outline
    from smtp_proxy.model.tenant import Tenant

log = logging.getLogger(__name__)

# A tenant at its limit is logged again after so long.
_TELL_AGAIN_SECONDS: Final = 60.0
# What is said of its mail, where the action does not say it.
_TOLD: Final = {"held_full": "rejected, since as much of it is held as may be (TENANT_HELD_MAX_MESSAGES, _BYTES)"}


class SharedRates(Protocol):
    """What is needed of `stream.limits.SharedLimits`."""

    async def ping(self) -> None: ...

    async def reserve(self, requests: Sequence[RateRequest], timeout_seconds: float) -> list[list[float]]: ...


@dataclass
class Rulings:
    """What is not simply accepted, by envelope id; all else is."""

    refused: set[bytes] = field(default_factory=set)
    placements: dict[bytes, Placement] = field(default_factory=dict)
    # Tenants that refuse, and in how many seconds their next message may fit.
    shut_seconds: dict[bytes, float] = field(default_factory=dict)


class TenantLimiter:
    """Knows the limited tenants, and judges their messages."""

    def __init__(
        self,
        shared: SharedRates,
        clock: Clock,
        *,
        timeout_seconds: float,
        delay_max_seconds: float,
        held: HeldRoom | None = None,
    ) -> None:
        self._shared = shared
        self._held = held or HeldRoom()
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._delay_max_seconds = delay_max_seconds
        self._tenants: dict[bytes, Tenant] = {}  # those with a rate
        self._ledgers: dict[bytes, Ledger] = {}
        self._told: dict[tuple[bytes, str], float] = {}  # when a tenant's mail was last said to be held, and so on
        self.is_shared = False  # until Redis has answered once

    def know(self, tenants: Sequence[Tenant]) -> None:
        """These have limits, and nobody else. Whose limits changed begins a new minute."""
        before, self._tenants = self._tenants, {t.id.bytes: t for t in tenants if t.limits.has_rate}
        for tenant_id, tenant in before.items():
            now = self._tenants.get(tenant_id)
            if now is None or now.limits != tenant.limits:
                self._ledgers.pop(tenant_id, None)
                self._told = {key: when for key, when in self._told.items() if key[0] != tenant_id}

    @property
    def may_hold(self) -> bool:
        """Whether the mail of some tenant is held when it is over its rate."""
        return any(tenant.limits.at_limit is AtLimit.HOLD for tenant in self._tenants.values())

    def concerns(self, tenant_ids: Sequence[bytes]) -> bool:
        """Whether any of these tenants has a rate, so that their messages are to be judged."""
        return bool(self._tenants) and any(tenant_id in self._tenants for tenant_id in tenant_ids)

    async def judge(self, outlines: Sequence[Outline]) -> Rulings | None:
        """What becomes of these messages; None: all are accepted as they are."""
        tenants = self._tenants  # As they are now: they may be others by the time Redis has answered.
        by_tenant: dict[bytes, list[Outline]] = {}
        for outline in outlines:
            if outline[TENANT_ID] in tenants:
                by_tenant.setdefault(outline[TENANT_ID], []).append(outline)
        if not by_tenant:
            return None
        requests = [self._request(tenants[tenant_id], theirs) for tenant_id, theirs in by_tenant.items()]
        rulings = Rulings()
        for (tenant_id, theirs), delays in zip(by_tenant.items(), await self._reserve(requests), strict=True):
            self._rule(tenants[tenant_id], theirs, delays, rulings)
        return rulings if rulings.refused or rulings.placements else None

    async def recover(self) -> None:
        """Ask Redis again, if it did not answer when last asked; with more patience, since nobody waits."""
        if self.is_shared:
            return
        try:
            await self._shared.ping()
        except StreamUnavailable:
            return
        self.is_shared = True
        log.info("tenants' limits are shared with the fleet", extra={"action": "limits_shared"})

    # -- below

    def _request(self, tenant: Tenant, rows: Sequence[Outline]) -> RateRequest:
        limits = tenant.limits
        ahead = self._delay_max_seconds if limits.at_limit is AtLimit.DELAY else 0.0
        counts = [row[RECIPIENT_COUNT] for row in rows]
        return RateRequest(tenant.id, limits.messages_per_minute, limits.recipients_per_minute, ahead, counts)

    async def _reserve(self, requests: Sequence[RateRequest]) -> list[list[float]]:
        # Always, so that what went through counts if Redis goes away in the middle of a minute.
        own = [self._reserve_here(request) for request in requests]
        if not self.is_shared:
            return own
        try:
            return await self._shared.reserve(requests, self._timeout_seconds)
        except StreamUnavailable as error:
            self.is_shared = False
            log.warning("each process limits tenants by itself: %s", error, extra={"action": "limits_local"})
            return own

    def _reserve_here(self, request: RateRequest) -> list[float]:
        return self._ledgers.setdefault(request.tenant_id.bytes, Ledger()).reserve(
            self._clock.monotonic(),
            request.recipients,
            messages_per_minute=request.messages_per_minute,
            recipients_per_minute=request.recipients_per_minute,
            most_ahead_seconds=request.most_ahead_seconds,
        )

    def _rule(self, tenant: Tenant, rows: Sequence[Outline], delays: Sequence[float], rulings: Rulings) -> None:
        over = [(row, delay) for row, delay in zip(rows, delays, strict=True) if delay > 0]
        if not over:
            return
        for row, delay in over:
            if tenant.limits.at_limit is AtLimit.HOLD and self._held.take(tenant.id.bytes, row[SIZE_BYTES]):
                action, rulings.placements[row[ID]] = "held", Placement(held=True)
            elif tenant.limits.at_limit is AtLimit.DELAY and delay <= self._delay_max_seconds:
                action, rulings.placements[row[ID]] = "delayed", Placement(delay_seconds=delay)
            else:
                action = "held_full" if tenant.limits.at_limit is AtLimit.HOLD else "rejected"
                rulings.refused.add(row[ID])
                # At MAIL nobody knows how many recipients there will be: only what would refuse a single one shuts.
                if row[RECIPIENT_COUNT] == 1:
                    ahead = self._delay_max_seconds if tenant.limits.at_limit is AtLimit.DELAY else 0.0
                    shut = min(delay - ahead, rulings.shut_seconds.get(tenant.id.bytes, math.inf))
                    rulings.shut_seconds[tenant.id.bytes] = shut
            TENANT_LIMITED.labels(action).inc()
        self._tell(tenant, action)

    def _tell(self, tenant: Tenant, action: str) -> None:
        now = self._clock.monotonic()
        key = (tenant.id.bytes, action)
        if self._told.get(key, -math.inf) + _TELL_AGAIN_SECONDS <= now:
            self._told[key] = now
            fields = {"action": "tenant_limited", "tenant": tenant.name, "tenant_id": str(tenant.id)}
            log.warning(
                "tenant %s is over its rate; its mail is %s", tenant.name, _TOLD.get(action, action), extra=fields
            )
