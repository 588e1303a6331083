"""Suppression lists of tenants, dead letters, and what tenants want of such mail: a part of `Store`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from smtp_proxy.model.attempt import Kind
from smtp_proxy.model.mailbox import mailbox_key, mailbox_spellings
from smtp_proxy.model.outcome import DeadLetter, Suppression
from smtp_proxy.model.policy import TenantPolicy
from smtp_proxy.model.webhook import Event
from smtp_proxy.store import lookup, suppressions
from smtp_proxy.store.held import tell_of
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from smtp_proxy.store.pool import Connection


# Dead letters that one statement looks at.
_PAGE_MAX: Final = 5000
_HIGHEST: Final = UUID(int=2**128 - 1)


class OutcomeStore:
    """A part of `Store`, which brings the connections."""

    def _connection(self, doing: str) -> AbstractAsyncContextManager[Connection]:
        raise NotImplementedError

    async def tenant_policies(self) -> dict[UUID, TenantPolicy]:
        """Of each tenant that wants anything else than the rest."""
        async with self._connection("reading the policies of tenants") as connection:
            rows = await connection.fetch(QUERIES["tenant_policies"])
        return {row["id"]: lookup.policy(row) for row in rows}

    # -- suppressions

    async def list_suppressions(
        self, tenant_id: UUID, *, after: str = "", limit: int = 1000, address: str | None = None
    ) -> list[Suppression]:
        """By address, those behind `after`; or of that address alone."""
        spellings = None if address is None else mailbox_spellings(address)
        async with self._connection("listing suppressions") as connection:
            rows = await connection.fetch(QUERIES["list_suppressions"], tenant_id, after, limit, spellings)
        return [
            Suppression(tenant_id, row["address"], row["reason"], row["envelope_id"], row["created_at"]) for row in rows
        ]

    async def add_suppressions(self, tenant_id: UUID, addresses: Sequence[str], reason: str) -> int:
        """Returns how many were not there yet; those that were keep their reason."""
        async with self._connection("adding suppressions") as connection:
            return await suppressions.add(connection, tenant_id, addresses, reason)

    async def remove_suppressions(self, tenant_id: UUID, addresses: Sequence[str]) -> list[str]:
        """Returns those that there were, as `mailbox_key` says them."""
        spellings = [spelling for address in addresses for spelling in mailbox_spellings(address)]
        async with self._connection("removing suppressions") as connection:
            rows = await connection.fetch(QUERIES["remove_suppressions"], tenant_id, spellings)
        return list(dict.fromkeys(mailbox_key(row["address"]) for row in rows))

    # -- dead letters

    async def dead_letters(
        self,
        *,
        tenant_id: UUID | None = None,
        kind: Kind | None = None,
        before: UUID | None = None,
        limit: int = 50,
    ) -> list[DeadLetter]:
        """What was refused or given up, newest message first; of a message, all its recipients that are.

        `before`: the last id of the page before. `limit` counts recipients, and may cut a message's.
        """
        found: list[DeadLetter] = []
        pages = self.dead_letter_pages(tenant_id=tenant_id, kind=kind, before=before, page=min(limit, _PAGE_MAX))
        async with aclosing(pages):
            async for page in pages:
                found += page
                if len(found) >= limit:
                    break
        return found[:limit]

    async def dead_letter_pages(
        self,
        *,
        tenant_id: UUID | None = None,
        kind: Kind | None = None,
        before: UUID | None = None,
        page: int = _PAGE_MAX,
    ) -> AsyncGenerator[list[DeadLetter]]:
        """All of them, newest message first, no message in two pages. A page may be empty.

        Each is a statement of its own, which looks at some `page` dead letters of whichever tenant, later ones at more.
        """
        below = before or _HIGHEST
        wanted = None if kind is None else int(kind)
        while True:
            async with self._connection("listing dead letters") as connection:
                lowest = await connection.fetchval(QUERIES["dead_until"], below, page)
                if lowest is None:
                    return
                rows = await connection.fetch(QUERIES["dead_letters"], tenant_id, wanted, below, lowest)
            yield [_dead_letter(row) for row in rows]
            below, page = lowest, min(_PAGE_MAX, page * 4)

    async def replay(self, envelope_ids: Sequence[UUID], recipients: Sequence[str] = ()) -> list[UUID]:
        """Make what was refused or given up of these messages due, as if it had come now; returns whose there was.

        `recipients`: only these. Attempts made so far stay recorded. A message whose body is gone stays as it is.
        """
        if not envelope_ids:
            return []
        wanted = {mailbox_key(address) for address in recipients}
        ids, low, high = list(envelope_ids), min(envelope_ids), max(envelope_ids)
        only = None
        async with self._connection("replaying dead letters") as connection, connection.transaction():
            await connection.execute(QUERIES["keep_contents"], ids, low, high)
            if wanted:
                dead = await connection.fetch(QUERIES["dead_recipients"], ids, low, high)
                only = [row["recipient"] for row in dead if mailbox_key(row["recipient"]) in wanted]
            rows = await connection.fetch(QUERIES["replay"], ids, low, high, only)
            return await tell_of(connection, Event.REPLAYED, rows)


def _dead_letter(row: Any) -> DeadLetter:
    return DeadLetter(
        envelope_id=row["envelope_id"],
        number=row["recipient_number"],
        tenant_id=row["tenant_id"],
        reverse_path=row["reverse_path"],
        recipient=row["recipient"],
        attempt_count=row["attempt_count"],
        finished_at=row["finished_at"],
        kind=Kind(row["kind"]),
        reply_code=row["reply_code"],
        enhanced_code=row["enhanced_code"],
        reply_text=row["reply_text"],
    )
