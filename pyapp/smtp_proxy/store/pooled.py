"""Writers through a pooler in transaction mode (docs/decisions/0023-poolers.md).

Without a pooler a batch is one simple query, and so a transaction by itself. If the server refuses it, it says so at
once and throws the rest away as it comes. A pooler takes that answer for the end of the transaction, gives the server's
connection to somebody else, in the middle of a message if it must, and what comes then goes wherever (PgBouncer 1.18:
connections that answer nobody any more). So a batch gets a transaction that is spelt out: refused, it stays open, the
rest goes to the same server, and ROLLBACK ends it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import asyncpg

from smtp_proxy.store.pool import local_settings
from smtp_proxy.store.writer import Writer, Writers, query_message

_ROLLBACK = query_message("ROLLBACK")
_HEAD_BYTES = 5  # of a message: its kind and its length


class PooledWriter(Writer):
    """A Writer whose batch is within BEGIN and COMMIT, with the time-outs that a connection of its own has."""

    _answers_are_long = False  # that to ROLLBACK is short

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record], settings: str) -> None:
        super().__init__(connection)
        self._settings = settings

    async def copy(
        self, query: bytes, encoded: Iterable[bytes], messages: int, *, deliveries: int = 1, parts: bool = False
    ) -> None:
        """See Writer.copy."""
        try:
            query = _in_transaction(query, self._settings)
            await super().copy(query, encoded, messages, deliveries=deliveries, parts=parts)
        except asyncpg.PostgresError:
            await self._roll_back()
            raise

    async def _roll_back(self) -> None:
        """Behind all that was sent, so that the pooler lets go of the server's connection when it has swallowed it."""
        answer = self._answers.expect()
        try:
            self._transport.write(_ROLLBACK)
            await answer
        except BaseException:
            answer.cancel()
            self.close()
            raise


class PooledWriters(Writers):
    """Writers of that kind."""

    async def _open(self) -> Writer:
        return PooledWriter((await super()._open())._connection, local_settings(self._settings))


@lru_cache(maxsize=8)
def _in_transaction(query: bytes, settings: str) -> bytes:
    statements = query[_HEAD_BYTES:-1].decode()
    if not statements.startswith("BEGIN;"):
        statements = f"BEGIN;\n{statements};\nCOMMIT"
    return query_message(statements.replace("BEGIN;", f"BEGIN;\n{settings};", 1))
