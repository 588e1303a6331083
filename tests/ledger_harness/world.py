"""One installation as a fleet has it: an ingress, two workers, Postgres and Valkey, with a link on every arrow."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from certificates import Authority
from fix_postgres import PostgresServer, free_port
from fix_valkey import ValkeyCluster, ValkeyServer

from ledger_harness.clock import FakeClock
from ledger_harness.disk import Disk
from ledger_harness.proxy import ClusterLink, Link
from smtp_proxy.config import Settings, environment_name
from smtp_proxy.model.policy import OnUnknown
from smtp_proxy.store import Store
from smtp_proxy.worker.sweeper import LEADER_NAME

_USERNAME = "ledger"
_READY_SECONDS = 40.0
# Whoever takes over looks twice a second, and Postgres may just be back.
_LEADER_SECONDS = 20.0
WORKERS = frozenset({"worker-a", "worker-b"})
# Short, so that much happens in little time; production's are longer by the same measure.
LEASE_SECONDS = 6.0
DATA_SECONDS = 2.0
# Where whoever leads something is connected from. Of one bigint, half is in classid and half in objid; webhooks and
# retention are led by locks of the same kind. $1 what is led
LEADER_PORTS = (
    "SELECT a.client_port FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND a.datname = current_database()"
    " AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended($1, 0)"
)
_QUICK: Mapping[str, object] = {
    "log_level": "info",
    "db_timeout_seconds": 2.0,
    "db_connect_timeout_seconds": 1.0,
    "redis_timeout_seconds": 0.5,
    "worker_lease_seconds": LEASE_SECONDS,
    "sweep_interval_seconds": 0.5,
    "sweep_after_seconds": 3.0,
    "retry_initial_seconds": 0.5,
    "retry_factor": 1.3,
    "retry_max_seconds": 2.0,
    "smarthost_tls": "none",
    "smarthost_connect_timeout_seconds": 2.0,
    "smarthost_command_timeout_seconds": 2.0,
    "smarthost_data_timeout_seconds": DATA_SECONDS,
    "shutdown_timeout_seconds": 5.0,
}


class Service:
    """One process of ours; it is started again after a kill, as an orchestrator does."""

    def __init__(self, name: str, kind: str, settings: Settings, folder: Path, clock: FakeClock) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.python_path: str | None = None  # where another release lies
        self._kind = kind
        self._settings = settings
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        names = {environment_name(field) for field in Settings.model_fields}
        environment = {name: value for name, value in os.environ.items() if name not in names}
        environment |= self._settings.environment() | self._clock.environment()
        if self.python_path is not None:
            environment["PYTHONPATH"] = self.python_path
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "smtp_proxy", "serve", self._kind],
                env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        assert self._process is not None
        assert self.stayed, f"{self.name} ended by itself:\n{self.tail()}"
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def pause(self, paused: bool) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if paused else signal.SIGCONT)

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def stayed(self) -> bool:
        """Not of another release: that one ends where Postgres is slow at its start, and is started again like this."""
        return self.runs or self.python_path is not None

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""


class Postgres(PostgresServer):
    """On a disk of its own, which can be full, and with a clock of its own."""

    def __init__(self, directory: Path, clock: FakeClock) -> None:
        super().__init__(directory)
        self._clock = clock

    def create(self) -> None:
        super().create()
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.write("max_wal_size = 96MB\nmin_wal_size = 32MB\ncheckpoint_timeout = 30s\n")

    def _launch(self) -> bool:
        with self._clock.here():
            return super()._launch()


class World:
    """All of it. `sink_port` is where the workers deliver to; with `cluster_shards` Valkey is a cluster of three nodes,
    and `worker_b` is the folder of another release, which worker-b runs.
    """

    def __init__(
        self,
        folder: Path,
        sink_port: int,
        *,
        disk_mb: int,
        on_unknown: OnUnknown = OnUnknown.RETRY,
        cluster_shards: int = 0,
        worker_b: Path | None = None,
    ) -> None:
        self.folder = folder
        self.disk = Disk(folder / "disk", disk_mb)
        self.clocks = {name: FakeClock(folder, name) for name in ("ingress", "worker-a", "worker-b", "postgres")}
        self.postgres = Postgres(self.disk.folder, self.clocks["postgres"])
        (folder / "valkey").mkdir()
        self.valkey: ValkeyServer | ValkeyCluster = ValkeyServer(folder / "valkey")
        self.stream: dict[str, object] = {}
        if cluster_shards:
            self.valkey = ValkeyCluster(folder / "valkey")
            self.stream = {"redis_cluster": True, "stream_shards": cluster_shards}
        self.smtp_port = free_port()
        self.links = {
            "application to ingress": Link("application to ingress", self.smtp_port),
            "ingress to Postgres": Link("ingress to Postgres", self.postgres.port),
            "ingress to Valkey": self._link_to_valkey("ingress to Valkey"),
            "worker-a to Postgres": Link("worker-a to Postgres", self.postgres.port),
            "worker-b to Postgres": Link("worker-b to Postgres", self.postgres.port),
            "workers to Valkey": self._link_to_valkey("workers to Valkey"),
            "workers to sink": Link("workers to sink", sink_port),
        }
        self.services: dict[str, Service] = {}
        self._worker_b = worker_b
        self._on_unknown = on_unknown

    @property
    def is_cluster(self) -> bool:
        return isinstance(self.valkey, ValkeyCluster)

    def _link_to_valkey(self, name: str) -> Link | ClusterLink:
        if isinstance(self.valkey, ValkeyCluster):
            return ClusterLink(name, [node.port for node in self.valkey.nodes])
        return Link(name, self.valkey.port)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        with self.disk.mounted():
            try:
                await self._start()
                yield
            finally:
                for clock in self.clocks.values():
                    clock.shift(0)
                self.disk.free()
                for service in self.services.values():
                    await asyncio.to_thread(service.stop)
                for link in self.links.values():
                    await link.stop()
                self.valkey.kill_all()
                await asyncio.to_thread(self.postgres.stop)

    async def _start(self) -> None:
        for link in self.links.values():
            await link.start()
        await asyncio.to_thread(self.valkey.start)
        await asyncio.to_thread(self.postgres.create)
        await asyncio.to_thread(self.postgres.start)
        await self.postgres.sql("CREATE DATABASE ledger")
        await self._furnish(self.postgres.settings("ledger"))
        certificate = Authority(self.folder).issue("localhost")
        ports = {"smtp_plaintext_port": self.smtp_port, "smtp_starttls_port": 0, "smtp_tls_port": 0}
        tls = {"tls_cert_file": certificate, "tls_key_file": certificate, "smtp_plaintext_username": _USERNAME}
        self._add("ingress", "smtp", "ingress to Postgres", "ingress to Valkey", {**ports, **tls})
        for name in ("worker-a", "worker-b"):
            hop = {"smarthost_host": "127.0.0.1", "smarthost_port": self.links["workers to sink"].port}
            hop["hostname"] = name  # by which the sink knows who sends
            self._add(name, "worker", f"{name} to Postgres", "workers to Valkey", hop)
        if self._worker_b is not None:
            self.services["worker-b"].python_path = str(self._worker_b)
        for service in self.services.values():
            service.start()
        await self.accepts()

    def _add(self, name: str, kind: str, postgres: str, valkey: str, more: Mapping[str, object]) -> None:
        data = self.folder / name
        data.mkdir()
        values: dict[str, Any] = {
            **_QUICK,
            **more,
            "data_dir": data,
            "db_port": self.links[postgres].port,
            "redis_url": f"redis://127.0.0.1:{self.links[valkey].port}",
            **self.stream,
        }
        settings = self.postgres.settings("ledger", **values)
        self.services[name] = Service(name, kind, settings, self.folder, self.clocks[name])

    async def _furnish(self, settings: Settings) -> None:
        await Store.migrate(settings)
        store = await Store.connect(settings, purpose="test")
        try:
            tenant = await store.create_tenant("ledger")
            policy = await store.tenant_policy("ledger")
            await store.set_tenant_policy("ledger", replace(policy, on_unknown=self._on_unknown))
            cheap = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash("not used")
            await store.create_credential(tenant.id, _USERNAME, cheap)
        finally:
            await store.close()

    async def accepts(self) -> None:
        """Wait until the ingress greets."""
        async with asyncio.timeout(_READY_SECONDS):
            while not await self._greets():
                assert all(s.runs for s in self.services.values()), "".join(s.tail() for s in self.services.values())
                await asyncio.sleep(0.1)

    async def _greets(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.smtp_port)
        except OSError:
            return False
        try:
            return (await reader.readline()).startswith(b"220")
        except OSError:
            return False
        finally:
            writer.transport.abort()

    async def sweeper(self) -> Service:
        """The worker that leads the sweep, by its lock. After another fault it may take a moment until one does."""
        deadline = time.monotonic() + _LEADER_SECONDS
        while (leader := await self._sweeper()) is None:
            assert time.monotonic() < deadline, f"nobody led the sweep for {_LEADER_SECONDS:g} s\n{self.logs()}"
            await asyncio.sleep(0.1)
        return leader

    async def _sweeper(self) -> Service | None:
        rows = await self.sql(LEADER_PORTS, LEADER_NAME)
        for name in sorted(WORKERS):
            if any(self.links[f"{name} to Postgres"].is_from_here(row["client_port"]) for row in rows):
                return self.services[name]
        return None

    async def sql(self, statement: str, *arguments: Any) -> list[Any]:
        return list(await self.postgres.sql(statement, *arguments, database="ledger"))

    def logs(self) -> str:
        return "\n".join(f"--- {service.name}\n{service.tail()}" for service in self.services.values())
