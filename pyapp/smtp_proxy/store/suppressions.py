"""Looking addresses up among a tenant's suppressions, and putting them there: by `model.mailbox` on both sides.

Rows of earlier releases are in lower case, with the domain as it was given: they are found under any spelling, and
stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from smtp_proxy.model.mailbox import has_one_spelling, mailbox_key, mailbox_spellings
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from smtp_proxy.store.pool import Connection

Wanted = tuple[UUID, str]  # a tenant and an address


async def reasons(connection: Connection, wanted: Iterable[Wanted]) -> dict[Wanted, str]:
    """Why, of each of these that is suppressed."""
    spellings = {each: mailbox_spellings(each[1]) for each in dict.fromkeys(wanted)}
    if not spellings:
        return {}
    tenants = [tenant for (tenant, _), spelt in spellings.items() for _ in spelt]
    addresses = [address for spelt in spellings.values() for address in spelt]
    rows = await connection.fetch(QUERIES["suppression_reasons"], tenants, addresses)
    there = {(row["tenant_id"], row["address"]): row["reason"] for row in rows}
    found = {each: [(each[0], s) for s in spelt if (each[0], s) in there] for each, spelt in spellings.items()}
    return {each: there[kept[0]] for each, kept in found.items() if kept}


async def add(
    connection: Connection, tenant_id: UUID, addresses: Sequence[str], reason: str, envelope_id: UUID | None = None
) -> int:
    """Of a tenant that there is; returns how many were not there yet."""
    peculiar = [(tenant_id, address) for address in addresses if not has_one_spelling(address)]
    there = await reasons(connection, peculiar)
    new = sorted({mailbox_key(address) for address in addresses if (tenant_id, address) not in there})
    rows = await connection.fetch(QUERIES["add_suppressions"], tenant_id, new, reason, envelope_id)
    return len(rows)
