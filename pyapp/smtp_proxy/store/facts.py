"""What Postgres says of itself, for those who look whether it will do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from smtp_proxy.store.faults import store_errors
from smtp_proxy.store.leader import close_quietly
from smtp_proxy.store.pool import open_session, where
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from smtp_proxy.config import Settings


@dataclass(frozen=True, slots=True)
class Facts:
    """Of the server, now."""

    version: str
    max_connections: int
    reserved_connections: int  # for superusers and the like
    connections: int  # of clients, all databases
    only_reads: bool
    commits_are_flushed: bool
    tables_of_others: list[str]  # that we have no rights of an owner to


async def read_facts(settings: Settings) -> Facts:
    """Ask Postgres itself, past a pooler. Raises StoreUnavailable (StoreMisconfigured: turned away)."""
    with store_errors(f"connecting to Postgres at {where(settings)}"):
        connection = await open_session(settings, "doctor")
        try:
            row = await connection.fetchrow(QUERIES["server_facts"])
        finally:
            await close_quietly(connection)
    assert row is not None  # noqa: S101 - a SELECT without FROM has one
    return Facts(*row.values())
