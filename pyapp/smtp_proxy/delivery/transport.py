"""The one question the worker asks: take this job, tell how it went.

A provider's API, or the wire part in the core, answers the same question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from smtp_proxy.model.attempt import RecipientResult
    from smtp_proxy.model.envelope import Job


class Transport(Protocol):
    """A way out of the house."""

    async def deliver(self, job: Job) -> list[RecipientResult]:
        """Offer the job to its next hop: exactly one result per recipient of the job, in the job's order.

        Never raises for anything the network or the next hop does; such things are results. Cancelled, it lets go
        of its connection, and what the next hop has made of the message is unknown.
        """
        ...

    async def close(self) -> None:
        """Say goodbye on idle connections."""
        ...
