"""What went wrong in Postgres, told in our own exceptions.

Decided by SQLSTATE (PostgreSQL appendix A) and by type, never by text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from smtp_proxy.errors import AlreadyExists, StoreError, StoreMisconfigured, StoreUnavailable

# Classes and codes that say "not now": connection, rollback for concurrency, resources (disk full), intervention
# (shutdown, statement time-out), I/O, locks.
_UNAVAILABLE_CLASSES = ("08", "40", "53", "57", "58")
# A server that is read-only is a standby, or was the primary before a fail-over.
READ_ONLY = "25006"
_UNAVAILABLE_CODES = (READ_ONLY, "55P03", "55006")
# Wrong user, password, database or rights: waiting does not help, but mail is deferred all the same.
_MISCONFIGURED_CLASSES = ("28", "3D")
_MISCONFIGURED_CODES = ("42501",)
_UNIQUE_VIOLATION = "23505"


def translate(error: BaseException, doing: str) -> StoreError | None:
    """Our exception for one raised by asyncpg or the network; None for what is not the store's fault."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, asyncpg.PostgresError):
        return _from_sqlstate(error, doing)
    if isinstance(error, OSError | TimeoutError):
        what = str(error) or type(error).__name__
        return StoreUnavailable(f"{doing}: the database can not be reached: {what}")
    if isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError):  # a ValueError is our mistake
        # The connection or the pool was closed underneath, by the server or by our own shutdown.
        return StoreUnavailable(f"{doing}: the connection to the database is gone: {error}")
    if isinstance(error, asyncpg.InternalClientError):
        return StoreUnavailable(f"{doing}: the connection to the database is unusable: {error}")
    return None


def _from_sqlstate(error: asyncpg.PostgresError, doing: str) -> StoreError:
    state = getattr(error, "sqlstate", None) or ""
    # Without the DETAIL, which may quote the row: somebody's mail.
    message = f"{doing}: {error.args[0] if error.args else error!r} (SQLSTATE {state})"
    if state == _UNIQUE_VIOLATION:
        return AlreadyExists(f"{doing}: it exists already")
    if state[:2] in _MISCONFIGURED_CLASSES or state in _MISCONFIGURED_CODES:
        return StoreMisconfigured(message, sqlstate=state)
    if state[:2] in _UNAVAILABLE_CLASSES or state in _UNAVAILABLE_CODES:
        return StoreUnavailable(message, sqlstate=state)
    return StoreError(message)


@contextmanager
def store_errors(doing: str) -> Iterator[None]:
    """Raise the errors of asyncpg and of the network as ours. `doing` says what was being done, for the message."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
        translated = translate(error, doing)
        if translated is None:
            raise
        raise translated from error
