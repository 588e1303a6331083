"""A next hop that is an API and not an SMTP server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smtp_proxy.delivery.transport import Ledger
    from smtp_proxy.model.attempt import RecipientResult


@dataclass(slots=True)
class Offered:
    """What one offer came to: results by the recipients' numbers."""

    results: dict[int, RecipientResult] = field(default_factory=dict)
    turned_away: bool = False  # nothing of the message was taken, and another candidate may be asked


class Provider(Protocol):
    """Takes one message for some recipients."""

    async def offer(self, raw: bytes, recipients: Sequence[tuple[int, str]], ledger: Ledger) -> Offered:
        """Hand over a whole message (RFC 5322, CRLF, no dots doubled) for these numbers and addresses.

        The ledger is asked before each call that may send. Never raises for what the API does.
        """
        ...

    async def close(self) -> None: ...
