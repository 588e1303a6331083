"""smtp-proxy itself, started with `smtp-proxy dev` through its documented contract (docs/DEV.md)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg

from benches.load import cpu
from benches.load.generator import Target
from benches.load.peers import Certificate
from benches.load.processes import ROOT, end, wait_for
from smtp_proxy.model.envelope import DeliveryState

# Accepting alone is measured: nothing is delivered meanwhile, so what is ready grows past the gate (50,000).
_ACCEPT = ("--set", "ingress_ready_depth_high=1000000000", "--set", "ingress_ready_depth_low=1000000000")
_HEARD_SECONDS = 1.0  # until the SMTP service has heard of it from Postgres, generously
_LEFT = f"SELECT count(*) FROM deliveries WHERE state IN ({DeliveryState.QUEUED:d}, {DeliveryState.SENDING:d})"
_MAIL_TABLES = "envelopes, content_parts, deliveries, attempts"


class Ours:
    """One `smtp-proxy dev`, default settings but for what is named in `arguments`."""

    def __init__(self, name: str, folder: Path, arguments: Sequence[str] = ()) -> None:
        self.name = name
        self._folder = folder / name.replace(" ", "-")
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: dict[str, Any] = {}

    @classmethod
    def accepting(cls, folder: Path, *arguments: str) -> Ours:
        """Durable accepts; nothing is delivered. `arguments` are more of `smtp-proxy dev`."""
        own = ("--plaintext-port", "0", "--without", "worker,sink,api", *_ACCEPT)
        return cls("ours durable", folder, (*own, *arguments))

    @classmethod
    def discarding(cls, folder: Path) -> Ours:
        """Accepts and discards: the core, the border and the reply alone."""
        return cls(
            "ours accept-only", folder, ("--plaintext-port", "0", "--without", "worker,sink,api", "--accept-only")
        )

    @classmethod
    def delivering(cls, folder: Path, smarthost_port: int | None = None, *arguments: str) -> Ours:
        """The whole way, to its own sink or to a fast one. `arguments` are more of `smtp-proxy dev`."""
        away = ("--smarthost", f"127.0.0.1:{smarthost_port}", "--set", "smarthost_tls=none", "--without", "sink")
        name = "ours delivering" if smarthost_port is None else "ours delivering fast"
        # The API takes no part in it.
        mail = ("--plaintext-port", "0", "--without", "api")
        return cls(name, folder, (*mail, *(away if smarthost_port is not None else ()), *arguments))

    def start(self) -> None:
        self._folder.mkdir(parents=True)
        ready_file, log = self._folder / "ready.json", self._folder / "log"
        command = [
            sys.executable, "-m", "smtp_proxy", "dev", "--ready-file", str(ready_file),
            "--data", str(self._folder / "data"), *self._arguments,
        ]  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SMTP_")}
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            wait_for(self.name, ready_file.exists, self._process, timeout_seconds=120)
        except RuntimeError as error:
            raise RuntimeError(f"{error}; its last words:\n{log.read_text(errors='replace')[-2000:]}") from None
        self._ready = json.loads(ready_file.read_text())

    def version(self) -> str:
        command = ["git", "describe", "--always", "--dirty"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    def target(self) -> Target:
        """Plaintext, no AUTH: for benchmarks only."""
        return Target(self._ready["smtp"]["plaintext_port"])

    def login_target(self, user: str | None = None, password: str | None = None) -> Target:
        """STARTTLS and AUTH, as clients submit: as the first tenant, or as somebody else."""
        options = ("--tls", "starttls", "--ca-file", self._ready["ca_file"], "--user", user or self._ready["user"])
        return Target(
            self._ready["smtp"]["starttls_port"],
            (*options, "--server-name", "localhost"),
            password or self._ready["password"],
        )

    def certificate(self) -> Certificate:
        """For peers: the server's own, and the login of its first tenant."""
        tls = Path(self._ready["data_dir"]) / "tls"
        files = (tls / name for name in ("ca.pem", "server.pem", "server-key.pem"))
        return Certificate(*files, self._ready["user"], self._ready["password"])

    def limit_tenant(self, messages_per_minute: int) -> None:
        """From now on the first tenant's mail is judged, message by message."""
        command = [sys.executable, "-m", "smtp_proxy", "tenant", "limits", "dev", "--messages-per-minute"]
        environment = {**os.environ, **self.database(), "REDIS_URL": self.redis_url()}
        command.append(str(messages_per_minute))
        subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
        time.sleep(_HEARD_SECONDS)

    def control_socket(self) -> Path:
        """What `smtp-proxy certs reload` talks to."""
        return Path(self._ready["data_dir"]) / "control" / "smtp.sock"

    def implicit_target(self) -> Target:
        """TLS from the first byte, and AUTH."""
        return self.certificate().target(self._ready["smtp"]["tls_port"])

    def database(self) -> Mapping[str, str]:
        """How to reach its Postgres: settings as environment variables (DB_HOST, ...)."""
        database: Mapping[str, str] = self._ready["database"]
        return database

    def redis_url(self) -> str:
        url: str = self._ready["redis_url"]
        return url

    def groups(self) -> cpu.Groups:
        """`server` is the SMTP service; worker, Valkey and the supervisor are told apart as Postgres is."""
        names = {"smtp": "server", "worker": "worker", "postgres": "postgres", "valkey": "valkey"}
        groups: dict[str, list[int]] = {}
        for service, pid in self._ready["pids"].items():
            groups.setdefault(names.get(service, "others"), []).append(pid)
        return groups

    def sql(self, statement: str) -> list[asyncpg.Record]:
        """Run one statement in its Postgres."""
        return asyncio.run(self._sql(statement))

    def sql_at_rest(self, statement: str) -> None:
        """Run one statement that writes much, and let it be seen when Postgres has written it out."""
        asyncio.run(self._sql_at_rest(statement))

    async def _sql_at_rest(self, statement: str) -> None:
        writing, beside = await self._connection(), await self._connection()
        try:
            async with writing.transaction():
                await writing.execute(statement)
                await beside.execute("CHECKPOINT")
        finally:
            await writing.close()
            await beside.close()

    async def _sql(self, statement: str) -> list[asyncpg.Record]:
        connection = await self._connection()
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()

    async def _connection(self) -> asyncpg.Connection:
        database = self.database()
        return await asyncpg.connect(
            host=database["DB_HOST"],
            port=int(database["DB_PORT"]),
            database=database["DB_NAME"],
            user=database["DB_USER"],
            password=database.get("DB_PASSWORD"),
        )

    def clean(self) -> None:
        self.sql(f"TRUNCATE {_MAIL_TABLES}")
        self.sql("CHECKPOINT")  # so that the next run does not pay for this one's writes

    def stored(self) -> int | None:
        """Messages in its store; None: it keeps none, on purpose."""
        if "--accept-only" in self._arguments:
            return None
        count: int = self.sql("SELECT count(*) FROM envelopes")[0][0]
        return count

    def left(self) -> int:
        """Deliveries that are queued or under way."""
        count: int = self.sql(_LEFT)[0][0]
        return count

    def stop(self) -> None:
        if self._process is not None:
            end(self._process, timeout_seconds=130)
