"""Connections to Postgres: how they are opened, and the pool's rules."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from smtp_proxy.aws import logins
from smtp_proxy.aws.database_login import database_login
from smtp_proxy.errors import ConfigurationError, SecretUnavailable, StoreMisconfigured, StoreUnavailable
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from typing import TypeAlias

    from smtp_proxy.config import Settings

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]

# How soon the kernel finds out that the other side is gone without a word (a failed host, a dropped NAT entry).
_KEEPALIVE_IDLE_SECONDS = 15
_KEEPALIVE_INTERVAL_SECONDS = 5
_KEEPALIVE_PROBES = 3
_KEEPALIVE_SETTINGS = {
    "tcp_keepalives_idle": str(_KEEPALIVE_IDLE_SECONDS),
    "tcp_keepalives_interval": str(_KEEPALIVE_INTERVAL_SECONDS),
    "tcp_keepalives_count": str(_KEEPALIVE_PROBES),
}
# A token that is refused may have been one too many: RDS takes 200 new logins by IAM a second. Seconds, as
# `logins.PAUSES_SECONDS`; to sign another at once would help nobody.
_IAM_PAUSES_SECONDS: Final = (0.7, 1.5)


def connect_arguments(settings: Settings, purpose: str, *, direct: bool = False) -> dict[str, Any]:
    """Arguments for asyncpg.connect and asyncpg.create_pool. `purpose` is shown in pg_stat_activity.

    `direct`: past the pooler, if there is one.
    """
    pooled = settings.db_pooler != "none" and not direct
    host = settings.db_direct_host or settings.db_host if direct else settings.db_host
    port = settings.db_direct_port or settings.db_port if direct else settings.db_port
    user = settings.db_direct_user or settings.db_user if direct else settings.db_user
    password = settings.db_password.get_secret_value() or None
    names = {"application_name": f"smtp-proxy {purpose}".strip(), "timezone": "UTC"}
    return {
        "host": host,
        "port": port,
        "database": settings.db_name,
        "user": user,
        # Called for every connection.
        "password": functools.partial(database_login().token, host, port, user) if settings.db_iam else password,
        "ssl": _verifying(settings.db_ca_file, settings.db_sslmode) if settings.db_ca_file else settings.db_sslmode,
        "timeout": settings.db_connect_timeout_seconds,
        "command_timeout": settings.db_timeout_seconds,
        # A pooler refuses or forgets all other settings, and prepared statements lie on a connection that the next
        # transaction may not have: see `settled`.
        **({"statement_cache_size": 0} if pooled else {}),
        "server_settings": names if pooled else {**names, **_session_settings(settings), **_KEEPALIVE_SETTINGS},
    }


@functools.cache
def _verifying(ca_file: Path, sslmode: str) -> ssl.SSLContext:
    """Read once: those of RDS are more than a hundred. Raises ConfigurationError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = sslmode == "verify-full"
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"DB_CA_FILE: {ca_file} can not be read as PEM: {error}") from None
    return context


def where(settings: Settings) -> str:
    """Where Postgres is, for messages."""
    if settings.db_secret and "db_host" not in settings.model_fields_set:
        return "the host of DB_SECRET"
    return f"{settings.db_host}:{settings.db_port}"


def local_settings(settings: Settings) -> str:
    """Statements that give one transaction what a connection without a pooler has from its beginning."""
    return ";".join(f"SET LOCAL {name} = {value}" for name, value in _session_settings(settings).items())


def _session_settings(settings: Settings) -> dict[str, str]:
    return {
        # Milliseconds. A little less than ours, so that the server's own answer comes first.
        "statement_timeout": str(max(1, int(settings.db_timeout_seconds * 1000 * 0.9))),
        "idle_in_transaction_session_timeout": str(int(settings.db_timeout_seconds * 1000 * 2)),
        # Our statements are short and go by keys: always by an index, planned once and without the JIT compiler.
        # Planning each time costs more than doing it, and what is newest is never in the statistics
        # (docs/decisions/0012-planned-once.md).
        "jit": "off",
        "plan_cache_mode": "force_generic_plan",
        "enable_seqscan": "off",
    }


@asynccontextmanager
async def settled(connection: Connection, settings: Settings) -> AsyncIterator[None]:
    """A connection of the pool with the settings that it needs; behind a pooler, one transaction with them.

    There the two messages of a statement (prepare, execute) are two transactions to the pooler unless they are within
    one, and may end up on two connections.
    """
    if settings.db_pooler == "none":
        yield
        return
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(local_settings(settings))
        yield
    except BaseException as error:
        if not _is_broken(error):
            await transaction.rollback()
        raise
    await transaction.commit()


def _is_broken(error: BaseException) -> bool:
    """Whether the connection is of no further use, and is dropped as it is."""
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(error, ValueError)  # which is our mistake
    return isinstance(error, asyncio.CancelledError | OSError | TimeoutError | asyncpg.InternalClientError)


async def refuse_unknown_pooler(connection: Connection, settings: Settings) -> None:
    """Raise StoreMisconfigured if there is a pooler that we were not told of."""
    if (
        settings.db_pooler == "none"
        and await connection.fetchval(QUERIES["backend_pid"]) != connection.get_server_pid()
    ):
        raise pooler_not_named(settings)


def pooler_not_named(settings: Settings) -> StoreMisconfigured:
    """What answers is no Postgres."""
    return StoreMisconfigured(
        f"{settings.db_host}:{settings.db_port} (DB_HOST, DB_PORT) is a connection pooler and not Postgres itself: set "
        "DB_POOLER=transaction, and DB_DIRECT_HOST and DB_DIRECT_PORT to Postgres itself"
    )


async def open_connection(settings: Settings, purpose: str) -> asyncpg.Connection[asyncpg.Record]:
    """One connection outside the pool, to where the pool goes."""
    return await _open(settings, purpose)


async def open_session(settings: Settings, purpose: str) -> asyncpg.Connection[asyncpg.Record]:
    """One connection to Postgres itself: for locks and notifications, which live as long as it does."""
    return await _open(settings, purpose, direct=True)


async def _open(settings: Settings, purpose: str, *, direct: bool = False) -> asyncpg.Connection[asyncpg.Record]:
    connection = await _log_in(settings, purpose, direct=direct)
    await keep_alive(connection)
    return connection


async def _log_in(
    settings: Settings, purpose: str, *, direct: bool = False, **options: Any
) -> asyncpg.Connection[asyncpg.Record]:
    """Connect; with a login out of a secret, read that again when it is refused, since it may have been rotated.

    Raises what asyncpg.connect raises, ConfigurationError, StoreUnavailable (no secret to be had).
    """
    if settings.db_iam:
        return await _log_in_by_iam(connect_arguments(settings, purpose, direct=direct), options)
    login = logins.database_login(settings)
    if login is None:
        return await _connect(connect_arguments(settings, purpose, direct=direct), options)
    pauses = iter(logins.PAUSES_SECONDS)
    while True:
        try:
            value = await login.read()
        except SecretUnavailable as error:
            raise StoreUnavailable(str(error)) from error
        filled = logins.with_database(settings, login, value)
        try:
            return await _connect(connect_arguments(filled, purpose, direct=direct), options)
        except asyncpg.InvalidAuthorizationSpecificationError:  # InvalidPasswordError is one
            seconds = next(pauses, None)
            if seconds is None:
                raise
            await logins.pause(seconds)
            await login.renew(value)


async def _log_in_by_iam(arguments: dict[str, Any], options: dict[str, Any]) -> asyncpg.Connection[asyncpg.Record]:
    """Connect with a token, which asyncpg asks for; refused, with another after a pause."""
    pauses = iter(_IAM_PAUSES_SECONDS)
    while True:
        try:
            return await _connect(arguments, options)
        except SecretUnavailable as error:
            raise StoreUnavailable(str(error)) from error
        except asyncpg.InvalidAuthorizationSpecificationError:
            seconds = next(pauses, None)
            if seconds is None:
                raise
            await logins.pause(seconds)


async def _connect(arguments: dict[str, Any], options: dict[str, Any]) -> asyncpg.Connection[asyncpg.Record]:
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(**arguments, **options)
    return connection


async def open_pool(settings: Settings, purpose: str, most: int) -> Pool:
    """The pool of up to so many; connects once, so that a wrong setting is found at start."""

    async def connect(*_: object, **options: Any) -> asyncpg.Connection[asyncpg.Record]:
        return await _log_in(settings, purpose, **options)

    try:
        return await asyncpg.create_pool(
            connect=connect,
            min_size=1,
            max_size=most,
            max_inactive_connection_lifetime=300,
            init=keep_alive,
            reset=_no_reset,
        )
    except asyncpg.ProtocolViolationError as error:
        # PgBouncer's word for settings that it does not know. Postgres has no reason to say so.
        raise pooler_not_named(settings) from error


async def keep_alive(connection: Connection) -> None:
    """Have the kernel probe an idle connection, with keepalive options where the platform has them."""
    transport = getattr(connection, "_transport", None)  # asyncpg has no option for it (0.32)
    raw = transport.get_extra_info("socket") if transport is not None else None
    if raw is None or raw.family not in (socket.AF_INET, socket.AF_INET6):
        return
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_SECONDS),
        ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_SECONDS),
        ("TCP_KEEPCNT", _KEEPALIVE_PROBES),
    ):
        if hasattr(socket, option):
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


async def _no_reset(_connection: Connection) -> None:
    """Nothing to undo: pooled connections change no session state. Saves one round trip per use."""
