"""Postgres: whether it is there with our schema, may be written to, and has connections for all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from smtp_proxy.doctor.finding import Finding, failed, ok, skipped, warning
from smtp_proxy.errors import SchemaMismatch, StoreError, StoreMisconfigured
from smtp_proxy.store import Store
from smtp_proxy.store.facts import Facts, read_facts
from smtp_proxy.store.pool import where

if TYPE_CHECKING:
    from smtp_proxy.config import Settings

# Of one process beside its pool: LISTEN, the leader's lock, and one that is just being replaced.
DIRECT_CONNECTIONS: Final = 4
_FULL_SHARE: Final = 0.8


async def examine(settings: Settings, processes: int | None) -> list[Finding]:
    """`processes`: how many run side by side at most; None: not known."""
    try:
        facts = await read_facts(settings)
    except StoreMisconfigured as error:
        return [failed(str(error), "see DB_USER, DB_PASSWORD (or DB_SECRET, DB_IAM), DB_NAME, DB_POOLER")]
    except StoreError as error:
        return [failed(str(error), "see DB_HOST, DB_PORT, DB_SSLMODE, and the security group of the database")]
    found = [ok(f"Postgres {facts.version} answers at {where(settings)}")]
    found.append(await _schema(settings))
    if facts.tables_of_others:
        found.append(
            warning(
                f"{len(facts.tables_of_others)} tables, such as {facts.tables_of_others[0]}, are another role's, and "
                "old ones of them can not be dropped: tasks of the release before made them, or still do",
                "run `smtp-proxy migrate` with MIGRATE_OWNER once they are gone (docs/DEPLOY.md)",
            )
        )
    if facts.only_reads:
        found.append(failed("Postgres only reads: it is a replica", "let DB_HOST name the writer's endpoint"))
    if not facts.commits_are_flushed:
        found.append(
            failed(
                "synchronous_commit or fsync is off: what was answered 250 may be lost",
                "switch both on in the parameter group",
            )
        )
    found.extend(budget(settings, facts, processes))
    return found


async def _schema(settings: Settings) -> Finding:
    try:
        store = await Store.connect(settings, purpose="doctor", accepts=False)
    except SchemaMismatch as error:
        return failed(str(error), "run `smtp-proxy migrate --pre-only` before the services of this release start")
    except StoreError as error:
        return failed(str(error), "see DB_HOST, DB_PORT, DB_POOLER")
    await store.close()
    return ok("the schema fits this release")


def budget(settings: Settings, facts: Facts, processes: int | None) -> Iterator[Finding]:
    """Whether the connections of all processes fit into what Postgres has for us. Pure."""
    usable = facts.max_connections - facts.reserved_connections
    direct = DIRECT_CONNECTIONS
    each = direct + (settings.db_pool_size if settings.db_pooler == "none" else 0)
    if processes is None:
        yield skipped(
            f"Postgres has {usable} connections to give, a process takes {each} at most: {usable // each} fit",
            "say how many run side by side with --processes, to have that checked",
        )
    elif processes * each > usable:
        yield failed(
            f"{processes} processes take {processes * each} connections at most (DB_POOL_SIZE {settings.db_pool_size} "
            f"and {direct} each), and Postgres has {usable}",
            "lower DB_POOL_SIZE, raise max_connections on a class that can hold it, or put a pooler between",
        )
    else:
        yield ok(f"{processes} processes take {processes * each} of {usable} connections at most")
    if facts.connections > _FULL_SHARE * usable:
        yield warning(
            f"{facts.connections} of {usable} connections are in use now", "see pg_stat_activity for whose they are"
        )
