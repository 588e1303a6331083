"""What a tenant wants to become of its mail, once it is accepted."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from smtp_proxy.model.lane import Lane


class OnUnknown(StrEnum):
    """What becomes of a message that was sent with its final dot when no answer came, or nobody was left to hear it."""

    RETRY = "retry"  # it is sent again, and may arrive twice
    HOLD = "hold"  # it stays until an operator releases or cancels it


class Reports(StrEnum):
    """Which reports (delivery status notifications, RFC 3464) the senders get."""

    ALL = "all"  # of failures and long delays unless NOTIFY says otherwise, and all that NOTIFY asks for
    REQUESTED = "requested"  # what NOTIFY asks for
    NONE = "none"  # for those who read webhooks


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """Of one tenant. None: as the settings say, or not at all."""

    on_unknown: OnUnknown = OnUnknown.RETRY
    # Submission is idempotent for so long, in seconds: the same key with the same credential is the same message.
    idempotency_seconds: int | None = None
    max_age_seconds: int | None = None  # what is not delivered after so long is given up
    reports: Reports = Reports.ALL
    suppress_hard_bounces: bool = False  # an address that is refused for good gets no more mail
    lane: Lane = Lane.TRANSACTIONAL  # of its mail, unless the credential or the message says otherwise
