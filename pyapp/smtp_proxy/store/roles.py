"""Who owns the schema, and who logs in: roles that `smtp-proxy migrate` makes, so that services are nobody's master.

    master (DB_SECRET of the migration) ─┐
    MIGRATE_LOGIN (by IAM)              ─┼─ are members of ─▶ MIGRATE_OWNER, which owns all and nobody logs in as
    MIGRATE_PROXY_LOGIN (by password)   ─┘

Whoever logs in as one of the logins is the owner from then on (`ALTER ROLE … SET role`), so that a partition is the
owner's whoever made it. The master stays who it is and may do what the owner may: services of the release before go on
as it, and what they make meanwhile is taken over by the next run.

The owner is no login, since the master must not be a member of what is a member of `rds_iam`: RDS would want a token
of the master too, however far away the membership is, and no password any more. Who makes a role is a member of it
since Postgres 16, though one without its rights; whether that counts is RDS's business and not written down, so it is
tried: the server gives `rds_iam` for some seconds, and it stays if the master's next login is not refused meanwhile.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncpg

from smtp_proxy.errors import StoreMisconfigured, StoreUnavailable
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from smtp_proxy.config import Settings
    from smtp_proxy.store.locks import Locks
    from smtp_proxy.store.pool import Connection

# What RDS lets log in with a token.
_RDS_IAM: Final = "rds_iam"
# `WITH INHERIT, SET`: before it a membership was always both.
_MEMBERSHIP_HAS_OPTIONS: Final = 16
# RFC 5802 3, as Postgres has it by default (scram_iterations).
_SCRAM_ITERATIONS: Final = 4096
_SCRAM_SALT_BYTES: Final = 16
# Long enough for one login. Once in the life of a database, so that nothing is gained by ending it sooner.
_TRIAL_SECONDS: Final = 3
_TRIAL_MORE_SECONDS: Final = 30
_GRANTED: Final = "smtp-proxy: granted for a moment"
# What is committed others see. Who cancels it hastens the end alone; and a server whose client is gone goes on to it,
# with the lock of the migration, so that another one waits.
_TRIAL: Final = """
DO $$
BEGIN
    GRANT {granted} TO {role};
    COMMIT;
    RAISE WARNING '{said}';
    BEGIN
        PERFORM pg_sleep({seconds});
    EXCEPTION WHEN query_canceled THEN
        NULL;
    END;
    REVOKE {granted} FROM {role};
END
$$"""


@dataclass(frozen=True, slots=True)
class Roles:
    """By their names; empty: there is none."""

    owner: str
    login: str = ""
    proxy_login: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Roles | None:
        """None: MIGRATE_OWNER is not set, and whoever logs in owns what it makes."""
        if not settings.migrate_owner:
            return None
        return cls(settings.migrate_owner, settings.migrate_login, settings.migrate_proxy_login)


async def hand_over(
    connection: Connection,
    locks: Locks,
    roles: Roles,
    *,
    proxy_password: str,
    try_login: Callable[[], Awaitable[None]],
) -> None:
    """Make what is missing of the roles, give the owner all that is ours, and be the owner from here on.

    As often as one likes, and beside running mail: each table is taken by itself, in a short try. `try_login` logs in
    as who is logged in here, and raises if that is refused.

    Raises:
        StoreMisconfigured: a role that is there already may do more than it should.
        SchemaBusy: others hold a table; those before it have changed hands, and the next run goes on.
        asyncpg.InsufficientPrivilegeError: who is logged in may not make roles.
    """
    await _make(connection, roles.owner, login=False)
    await _join(connection, roles.owner, "CURRENT_USER")
    schema = await connection.fetchval(QUERIES["current_schema"])
    await connection.execute(f'GRANT USAGE, CREATE ON SCHEMA "{schema}" TO {roles.owner}')
    if roles.login:
        await _make_login(connection, roles.owner, roles.login)
        await _let_in_by_token(connection, roles.login, try_login)
    if roles.proxy_login:
        await _make_login(connection, roles.owner, roles.proxy_login)
        # Only what it can be checked with: statements may be logged.
        await connection.execute(f"ALTER ROLE {roles.proxy_login} PASSWORD '{scram_verifier(proxy_password)}'")
    for row in await connection.fetch(QUERIES["to_hand_over"]):
        statement = f"{row['change']} OWNER TO {roles.owner}"
        await locks.transaction(statement, lambda statement=statement: connection.execute(statement))  # type: ignore[misc]
    await connection.execute(f"SET ROLE {roles.owner}")


def scram_verifier(password: str, salt: bytes | None = None) -> str:
    """What Postgres keeps of a password (SCRAM-SHA-256, RFC 7677), worked out on this side; of printable ASCII."""
    salt = os.urandom(_SCRAM_SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _SCRAM_ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (base64.b64encode(each).decode() for each in (salt, stored, server))
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{salt64}${stored64}:{server64}"


# -- below. The names of roles are plain (`config_checks.role_name`): there is nothing to quote.


async def _make(connection: Connection, role: str, *, login: bool) -> None:
    row = await connection.fetchrow(QUERIES["role_facts"], role)
    if row is None:
        await connection.execute(f"CREATE ROLE {role} {'LOGIN' if login else 'NOLOGIN'}")
        return
    _refuse_mighty(role, row["powers"])
    if row["logs_in"] != login:
        raise StoreMisconfigured(
            f"the role {role} is there and may {'not ' if login else ''}log in: ALTER ROLE {role} "
            f"{'LOGIN' if login else 'NOLOGIN'}, or name another (MIGRATE_OWNER, MIGRATE_LOGIN, MIGRATE_PROXY_LOGIN)"
        )


def _refuse_mighty(role: str, powers: Sequence[str]) -> None:
    if powers:
        raise StoreMisconfigured(
            f"the role {role} is there and has {', '.join(powers)}: take that from it (ALTER ROLE, REVOKE), or name "
            "another (MIGRATE_OWNER, MIGRATE_LOGIN, MIGRATE_PROXY_LOGIN)"
        )


async def _make_login(connection: Connection, owner: str, role: str) -> None:
    await _make(connection, role, login=True)
    await _join(connection, owner, role)
    await connection.execute(f"ALTER ROLE {role} SET role = {owner}")


async def _let_in_by_token(connection: Connection, role: str, try_login: Callable[[], Awaitable[None]]) -> None:
    # None, where there is no such role: this is no RDS.
    if await connection.fetchval(QUERIES["is_member"], role, _RDS_IAM) is not False:
        return
    try:
        async with _member_for_a_moment(connection, role) as moment:
            await try_login()
            if moment.done():
                raise StoreUnavailable("the trial login took longer than the trial; run `smtp-proxy migrate` again")
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise _locks_out_the_master(connection, role) from error
    await connection.execute(f"GRANT {_RDS_IAM} TO {role}")


@asynccontextmanager
async def _member_for_a_moment(connection: Connection, role: str) -> AsyncIterator[asyncio.Task[str]]:
    """From here to the end of the task that is given, which the end of the block waits for.

    The server itself takes the grant back. Were that ours to do, and this process ended before, nobody could log in
    any more to do it, where the grant locks the master out.
    """
    granted = asyncio.Event()

    def told(_: object, message: asyncpg.PostgresLogMessage) -> None:
        if message.message == _GRANTED:
            granted.set()

    trial = _TRIAL.format(granted=_RDS_IAM, role=role, said=_GRANTED, seconds=_TRIAL_SECONDS)
    connection.add_log_listener(told)
    await connection.execute("SET client_min_messages = warning")
    await connection.execute("SET statement_timeout = 0")
    moment = asyncio.create_task(connection.execute(trial, timeout=_TRIAL_SECONDS + _TRIAL_MORE_SECONDS))
    waiting = asyncio.create_task(granted.wait())
    try:
        await asyncio.wait([moment, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not granted.is_set():
            await moment  # It failed before, and says why.
        yield moment
    finally:
        waiting.cancel()
        # Not cancelled with us: asyncpg would have the server cancel it.
        await asyncio.shield(moment)
        connection.remove_log_listener(told)
        await connection.execute("RESET statement_timeout")
        await connection.execute("RESET client_min_messages")


def _locks_out_the_master(connection: Connection, role: str) -> StoreMisconfigured:
    # AWS's manual has it otherwise, and the stack's services have no other way in: there is no setting to name.
    version = connection.get_server_version()
    return StoreMisconfigured(
        f"once {role} (MIGRATE_LOGIN) is a member of rds_iam, who made it is refused as well; so the grant was taken "
        "back, and mail is not touched: services of the release before go on, those of this one wait. No setting "
        f"mends it: open an issue that says Postgres {version.major}.{version.minor} and whose it is, and keep the "
        "release before until then"
    )


async def _join(connection: Connection, owner: str, member: str) -> None:
    options = " WITH INHERIT TRUE, SET TRUE" if _major(connection) >= _MEMBERSHIP_HAS_OPTIONS else ""
    await connection.execute(f"GRANT {owner} TO {member}{options}")


def _major(connection: Connection) -> int:
    return connection.get_server_version().major
