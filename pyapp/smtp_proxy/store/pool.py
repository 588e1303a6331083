"""Connections to Postgres: how they are opened, and the pool's rules."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from typing import TypeAlias

    from smtp_proxy.config import Settings

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]

# How soon the kernel finds out that the other side is gone without a word (a failed host, a dropped NAT entry).
_KEEPALIVE_IDLE_SECONDS = 15
_KEEPALIVE_INTERVAL_SECONDS = 5
_KEEPALIVE_PROBES = 3


def connect_arguments(settings: Settings, purpose: str) -> dict[str, Any]:
    """Arguments for asyncpg.connect and asyncpg.create_pool. `purpose` is shown in pg_stat_activity."""
    return {
        "host": settings.db_host,
        "port": settings.db_port,
        "database": settings.db_name,
        "user": settings.db_user,
        "password": settings.db_password.get_secret_value() or None,
        "ssl": settings.db_sslmode,
        "timeout": settings.db_connect_timeout_seconds,
        "command_timeout": settings.db_timeout_seconds,
        "server_settings": {
            "application_name": f"smtp-proxy {purpose}".strip(),
            # Milliseconds. A little less than ours, so that the server's own answer comes first.
            "statement_timeout": str(max(1, int(settings.db_timeout_seconds * 1000 * 0.9))),
            "idle_in_transaction_session_timeout": str(int(settings.db_timeout_seconds * 1000 * 2)),
            "timezone": "UTC",
            # Our statements are short and go by keys: always by an index, planned once and without the JIT compiler.
            # Planning each time costs more than doing it, and what is newest is never in the statistics
            # (docs/decisions/0012-planned-once.md).
            "jit": "off",
            "plan_cache_mode": "force_generic_plan",
            "enable_seqscan": "off",
            "tcp_keepalives_idle": str(_KEEPALIVE_IDLE_SECONDS),
            "tcp_keepalives_interval": str(_KEEPALIVE_INTERVAL_SECONDS),
            "tcp_keepalives_count": str(_KEEPALIVE_PROBES),
        },
    }


async def open_connection(settings: Settings, purpose: str) -> asyncpg.Connection[asyncpg.Record]:
    """One connection outside the pool: for locks and notifications, which live as long as it does."""
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(**connect_arguments(settings, purpose))
    await keep_alive(connection)
    return connection


async def open_pool(settings: Settings, purpose: str, most: int) -> Pool:
    """The pool of up to so many; connects once, so that a wrong setting is found at start."""
    return await asyncpg.create_pool(
        **connect_arguments(settings, purpose),
        min_size=1,
        max_size=most,
        max_inactive_connection_lifetime=300,
        init=keep_alive,
        reset=_no_reset,
    )


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
