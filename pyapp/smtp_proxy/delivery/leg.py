"""One job may go several ways at once: a leg is one of them, with the recipients that share it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from smtp_proxy.model.record import record

if TYPE_CHECKING:
    from smtp_proxy.delivery.route import Route
    from smtp_proxy.model.attempt import RecipientResult
    from smtp_proxy.model.envelope import Job, Recipient


@record(frozen=True, slots=True)
class Leg:
    """Recipients of one message that go to one destination, and so share a transaction.

    `candidates` are tried in this order: the next one when one cannot be reached, or sends us away before anything of
    the message was sent. Without candidates there is nothing to ask, and `decided` holds the result of every recipient.
    """

    recipients: tuple[Recipient, ...]
    candidates: tuple[Route, ...]
    decided: tuple[RecipientResult, ...] = ()


class Planner(Protocol):
    """Which way a job goes."""

    async def plan(self, job: Job) -> list[Leg]:
        """Split a job into its legs; every recipient is in exactly one. Never raises for what DNS or a server does.

        While nothing changes, the same way is the same `Route` object each time, so pools and limits may go by it.
        """
        ...


class Routes:
    """One way for all mail."""

    def __init__(self, smarthost: Route) -> None:
        self._candidates = (smarthost,)

    async def plan(self, job: Job) -> list[Leg]:
        return [Leg(job.recipients, self._candidates)]
