"""The one question the worker asks: take this job, tell how it went.

A provider's API, or the wire part in the core, answers the same question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from smtp_proxy.delivery.turn import FREE_TURN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smtp_proxy.delivery.turn import Turn
    from smtp_proxy.model.attempt import RecipientResult
    from smtp_proxy.model.envelope import Job


class Ledger(Protocol):
    """Where it is written down that a message is about to be sent for good, before it is."""

    async def sending(self, recipient_numbers: Sequence[int], remote: str = "") -> bool:
        """Await before the final dot, or a provider's API call, leaves for these recipients of the job to `remote`.

        True: an attempt of unknown outcome is committed for each, so that a crash from here on is known of. It may be
        said again within one attempt. False: the claim was lost, so nothing may be sent.
        """
        ...


class NoLedger:
    """Of a delivery that nobody keeps account of: a test's, or a tool's."""

    async def sending(self, recipient_numbers: Sequence[int], remote: str = "") -> bool:
        return True


NO_LEDGER: Final = NoLedger()


class Transport(Protocol):
    """A way out of the house."""

    async def deliver(self, job: Job, ledger: Ledger = NO_LEDGER, turn: Turn = FREE_TURN) -> list[RecipientResult]:
        """Offer the job to its next hop: exactly one result per recipient of the job, in the job's order.

        `ledger` is asked before a message is sent for good. Where the answer to that never comes, the result's
        outcome is UNKNOWN. `turn` is lent while the delivery waits for its destination.

        Never raises for anything the network or the next hop does; such things are results. Cancelled, it lets go
        of its connection, and what the next hop has made of the message is unknown.
        """
        ...

    async def close(self) -> None:
        """Say goodbye on idle connections."""
        ...
