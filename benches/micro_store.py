"""`python -m benches.micro_store`: the choices inside the store, measured on a real Postgres that it starts itself.

How a batch is written (docs/decisions/0021), bodies inline or in TOAST (0011), plans kept or made anew (0012).
Variants take turns call by call, so what drifts hits all alike; medians are printed as Markdown. fsync is on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fix_postgres import PostgresServer

from smtp_proxy.config import Settings
from smtp_proxy.store import Store, accept
from smtp_proxy.store.ids import new_id
from smtp_proxy.store.pool import connect_arguments, open_connection
from smtp_proxy.store.queries import QUERIES
from smtp_proxy.store.writer import Writer

Call = Callable[[], Awaitable[object]]
_TICKS = os.sysconf("SC_CLK_TCK")


def letters(count: int, size_bytes: int) -> list[accept.CoreEnvelope]:
    now = datetime.now(UTC)
    body = os.urandom(size_bytes)
    tenant, credential, microseconds = new_id(now).bytes, new_id(now).bytes, int(now.timestamp() * 1e6)
    return [
        (new_id(now).bytes, tenant, credential, "a@example.com", ["b@example.org"], body, 0, False,
         "client.example", "192.0.2.1", True, microseconds, None, 0)
        for _ in range(count)
    ]  # fmt: skip


def backend_cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def take_turns(variants: dict[str, tuple[int, Call]], rounds: int) -> dict[str, tuple[float, float, float]]:
    """Median seconds of a call, our own CPU (median) and the backend's (mean, its clock is coarse), by variant."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    backend = dict.fromkeys(variants, 0.0)
    for number in range(rounds + 2):
        for name, (pid, call) in variants.items() if number % 2 else reversed(variants.items()):
            cpu, own, began = backend_cpu(pid), time.process_time(), time.perf_counter()
            await call()
            if number >= 2:  # the first ones warm caches and plans
                seen[name].append((time.perf_counter() - began, time.process_time() - own))
                backend[name] += backend_cpu(pid) - cpu
    return {
        name: (statistics.median(w for w, _ in runs), statistics.median(c for _, c in runs), backend[name] / rounds)
        for name, runs in seen.items()
    }


def show(title: str, found: dict[str, tuple[float, float, float]]) -> None:
    for name, (wall, own, backend) in found.items():
        print(f"| {title} | {name} | {wall * 1000:.2f} | {own * 1000:.2f} | {backend * 1000:.2f} |", flush=True)


_COLUMNS = {
    "envelopes": ("id", "tenant_id", "credential_id", "reverse_path", "recipient_count", "size_bytes", "body_type",
                  "smtputf8", "helo", "client_address", "tls", "received_at", "content"),
    "deliveries": ("envelope_id", "recipient_number", "recipient", "sweep_at"),
}  # fmt: skip


async def copy_by_asyncpg(connection: asyncpg.Connection, batch: list[accept.CoreEnvelope], sweep_at: datetime) -> None:
    """What accepting was before: a transaction of COPYs, each encoded by asyncpg, in six round trips."""
    records: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _COLUMNS}
    for row in batch:
        envelope_id, tenant, credential = (UUID(bytes=raw) for raw in row[:3])
        received = datetime.fromtimestamp(row[11] / 1e6, UTC)
        records["envelopes"].append(
            (envelope_id, tenant, credential, row[3], len(row[4]), len(row[5]), *row[6:11], received, row[5])
        )
        records["deliveries"] += [(envelope_id, n, recipient, sweep_at) for n, recipient in enumerate(row[4])]
    async with connection.transaction():
        for table, rows in records.items():
            await connection.copy_records_to_table(table, records=rows, columns=_COLUMNS[table])


async def ways_to_accept(connection: asyncpg.Connection, settings: Settings, rounds: int, size_bytes: int) -> None:
    writer = await Writer.open(settings, "bench writer")
    (backend,) = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE application_name LIKE '%bench writer'")

    def in_one_write(count: int) -> Call:
        async def call() -> None:
            sweep_at_us = accept.microseconds(datetime.now(UTC)) + 15_000_000
            await accept.accept(writer, accept.encode(letters(count, size_bytes), sweep_at_us), count)

        return call

    def by_asyncpg(count: int) -> Call:
        async def call() -> None:
            await copy_by_asyncpg(connection, letters(count, size_bytes), datetime.now(UTC) + timedelta(seconds=15))

        return call

    for count in (1, 16, 48, 100, 500):
        variants = {
            "asyncpg, two COPYs": (connection.get_server_pid(), by_asyncpg(count)),
            "one write": (backend["pid"], in_one_write(count)),
        }
        show(f"{count} messages", await take_turns(variants, rounds))
    writer.close()


async def inline_or_toast(connection: asyncpg.Connection, rounds: int, size_bytes: int) -> None:
    pid, wal = connection.get_server_pid(), {"bodies_inline": 0, "bodies_toast": 0}
    for name, target in (("bodies_inline", 8160), ("bodies_toast", 2040)):
        await connection.execute(
            f"CREATE TABLE {name} (LIKE bodies INCLUDING ALL) WITH (toast_tuple_target = {target});"
        )

    def call(table: str) -> Call:
        async def once() -> None:
            records = [(new_id(datetime.now(UTC)), os.urandom(size_bytes)) for _ in range(100)]
            at = await connection.fetchval("SELECT pg_current_wal_insert_lsn()")
            await connection.copy_records_to_table(table, records=records)
            wal[table] += int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - $1::pg_lsn", at))

        return once

    show("100 bodies", await take_turns({name: (pid, call(name)) for name in wal}, rounds))
    print("WAL bytes a body:", {name: round(total / (rounds + 2) / 100) for name, total in wal.items()})


async def planned(settings: Settings, rounds: int) -> None:
    modes, connections = ("force_generic_plan", "force_custom_plan", "auto"), {}
    for mode in modes:
        arguments = connect_arguments(settings, mode)
        arguments["server_settings"]["plan_cache_mode"] = mode
        connections[mode] = await asyncpg.connect(**arguments)
    ids = [
        row["envelope_id"] for row in await connections["auto"].fetch("SELECT envelope_id FROM deliveries LIMIT 100")
    ]
    worker, lease = new_id(datetime.now(UTC)), timedelta(seconds=30)

    def claim(connection: asyncpg.Connection, count: int) -> Call:
        chosen = ids[:count]

        async def once() -> None:  # undone, so that there is the same to claim next time; nothing is flushed
            transaction = connection.transaction()
            await transaction.start()
            await connection.fetch(QUERIES["claim"], chosen, min(chosen), max(chosen), worker, lease)
            await transaction.rollback()

        return once

    for count in (1, 100):
        found = {mode: (c.get_server_pid(), claim(c, count)) for mode, c in connections.items()}
        show(f"claim of {count}", await take_turns(found, rounds * 4))
    for connection in connections.values():
        await connection.close()


async def measure(server: PostgresServer, rounds: int, size_bytes: int) -> None:
    await server.sql("CREATE DATABASE bench")
    settings = server.settings("bench")
    await Store.migrate(settings)
    store = await Store.connect(settings, purpose="bench")
    await store.ensure_partitions(datetime.now(UTC), settings.partition_days_ahead)
    connection = await open_connection(settings, "bench")
    version = (await connection.fetchval("SHOW server_version")).split()[0]
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, Postgres {version}, asyncpg {asyncpg.__version__}, {platform.machine()},",
        end=" ",
    )
    print(f"{os.cpu_count()} cores, {rounds} rounds, bodies of {size_bytes} bytes\n")
    print("| what | variant | median ms | our CPU ms | backend CPU ms |\n|---|---|--:|--:|--:|")
    await ways_to_accept(connection, settings, rounds, size_bytes)
    await planned(settings, rounds)
    await inline_or_toast(connection, rounds, size_bytes)
    await connection.close()
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches.micro_store", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--size", type=int, default=4096, help="of a body, bytes")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="on the disk to be measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="smtp-proxy-micro-", dir=options.work) as folder:
        server = PostgresServer(Path(folder))
        server.create()
        server.start()
        try:
            asyncio.run(measure(server, options.rounds, options.size))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
