"""What the worker asks of the rooms below, so that tests can put fakes there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from smtp_proxy.model.attempt import Attempt, Postponed, Sending
    from smtp_proxy.model.envelope import Job
    from smtp_proxy.model.lane import Lane
    from smtp_proxy.model.outcome import Consequences
    from smtp_proxy.model.policy import TenantPolicy


class Leader(Protocol):
    """A lock by name; see `store.leader.Leadership`."""

    @property
    def held(self) -> bool: ...

    async def try_acquire(self) -> bool: ...

    async def release(self) -> None: ...


class MailStore(Protocol):
    """The part of `store.Store` that moves mail out. Everything may raise StoreUnavailable."""

    async def claim(self, envelope_ids: Sequence[UUID], worker_id: UUID, lease_seconds: float) -> list[Job]: ...

    async def renew(self, envelope_ids: Sequence[UUID], worker_id: UUID, lease_seconds: float) -> dict[UUID, bool]: ...

    async def record(self, attempts: Sequence[Attempt], then: Consequences | None = None) -> int: ...

    async def tenant_policies(self) -> dict[UUID, TenantPolicy]: ...

    async def sending(self, sendings: Sequence[Sending]) -> set[tuple[UUID, int]]: ...

    async def postpone(self, postponed: Sequence[Postponed], then: Consequences | None = None) -> int: ...

    async def release(self, worker_id: UUID) -> dict[UUID, Lane]: ...

    async def sweep(self, limit: int, sweep_after_seconds: float, lane: Lane = ...) -> list[UUID]: ...

    async def ensure_partitions(self, now: datetime, days_ahead: int) -> list[str]: ...

    async def forget_submission_keys(self) -> int: ...

    async def depth(self) -> int: ...

    async def backlog_age_seconds(self) -> float: ...

    def leader(self, name: str) -> Leader: ...
