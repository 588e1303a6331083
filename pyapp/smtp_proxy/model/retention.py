"""How long a tenant's mail is kept."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from smtp_proxy.model.envelope import DeliveryState

# Nothing more becomes of a copy that stands there, unless an operator replays it. A state that is not known here is not
# among them, so what a later release does with its mail is not dropped by this one.
SETTLED = frozenset({DeliveryState.DELIVERED, DeliveryState.REFUSED, DeliveryState.CANCELLED})


@dataclass(frozen=True, slots=True)
class Retention:
    """Of one tenant. `days` None: as RETENTION_DAYS says. No `keep_bodies`: content goes with the last recipient."""

    tenant_id: UUID
    days: int | None = None
    keep_bodies: bool = True


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What came of a look at some messages' content."""

    count: int  # whose content went
    kept: tuple[UUID, ...] = ()  # whose content is there still: they are not settled
    after: UUID | None = None  # with which message to go on; None: that was all
