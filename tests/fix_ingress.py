"""The whole SMTP service in this process, between a real Postgres and a real Valkey, and clients that talk to it.

Import the fixtures into a conftest: `from fix_ingress import authority, client_tls, house, make_house, smtp_settings`,
with those of `fix_postgres` and `fix_valkey`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import re
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from uuid import UUID

import pytest
from argon2 import PasswordHasher
from certificates import Authority
from fix_postgres import PostgresServer
from fix_valkey import ValkeyServer
from senders import Wire

from smtp_proxy.config import Settings
from smtp_proxy.ingress import serve
from smtp_proxy.model.tenant import Credential
from smtp_proxy.store import Store
from smtp_proxy.telemetry.metrics import REGISTRY

USERNAME, PASSWORD = "app@acme.example", "correct horse"
BODY = b"From: a@sender.example\r\nSubject: test\r\n\r\nHello.\r\n..two dots\r\n.\ttab\r\n\r\n"

Listener = Literal["starttls", "tls", "plaintext"]
Address = tuple[str, int]
_STARTED_SECONDS = 15.0
_STOPPED_SECONDS = 15.0
_STREAM = b"email-processing"


class Client(Wire):
    """One SMTP connection of a test. Nothing is checked but what is asked for."""

    @classmethod
    async def connect(cls, address: Address, tls: ssl.SSLContext | None = None) -> Self:
        """Connect, with TLS first if a context is given; the greeting is not read."""
        name = "localhost" if tls else None
        return cls(*await asyncio.open_connection(*address, ssl=tls, server_hostname=name))

    async def say(self, line: str) -> str:
        """Send a command; its reply, whatever that is."""
        self.send(f"{line}\r\n".encode())
        return await self.reply()

    def send(self, content: bytes) -> None:
        self.writer.write(content)

    async def reply(self) -> str:
        async with asyncio.timeout(20):
            return await super().reply()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands; STARTTLS has been answered."""
        await self.writer.start_tls(context, server_hostname="localhost")

    async def log_in(self, username: str = USERNAME, password: str = PASSWORD) -> str:
        return await self.say(f"AUTH PLAIN {plain(username, password)}")

    async def begin(self, *recipients: str, reverse_path: str = "a@sender.example") -> None:
        """Everything up to the reply to DATA."""
        await self.command(250, f"MAIL FROM:<{reverse_path}>")
        for recipient in recipients or ("b@rcpt.example",):
            await self.command(250, f"RCPT TO:<{recipient}>")
        await self.command(354, "DATA")

    async def submit(self, body: bytes = BODY, *recipients: str, **envelope: str) -> UUID:
        """Send one message; its id. Raises Refused."""
        await self.begin(*recipients, **envelope)
        self.send(stuffed(body))
        return queued_id(await self.expect(250))

    async def is_closed(self) -> bool:
        """Has the server closed, without another word?"""
        async with asyncio.timeout(20):
            return not await self.reader.read()

    async def hang_up(self) -> None:
        """Go in good order."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def vanish(self) -> None:
        """Go without a word."""
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


def plain(username: str, password: str) -> str:
    """The initial response of AUTH PLAIN (RFC 4616)."""
    return base64.b64encode(f"\0{username}\0{password}".encode()).decode()


def stuffed(body: bytes) -> bytes:
    """As it goes over the wire, with its final dot (RFC 5321 4.5.2)."""
    return re.sub(rb"(?m)^\.", b"..", body) + b".\r\n"


def queued_id(reply: str) -> UUID:
    """The id in `250 2.0.0 queued as <id>`."""
    found = re.fullmatch(r"250 2\.0\.0 queued as ([0-9a-f-]{36})", reply)
    assert found, reply
    return UUID(found[1])


@dataclass
class House:
    """One service, what is around it, and its clients."""

    settings: Settings
    store: Store
    credential: Credential
    tls: ssl.SSLContext
    postgres: PostgresServer
    valkey: ValkeyServer
    addresses: dict[str, Address] = field(default_factory=dict)
    _serving: asyncio.Task[None] | None = None
    _clients: list[Client] = field(default_factory=list)

    # -- the service

    async def start(self, *, wait: bool = True) -> None:
        """Run the service as `smtp-proxy serve smtp` does, and wait until it listens."""
        self.addresses.clear()
        self._serving = asyncio.create_task(self._serve())
        if wait:
            await self.listening()

    async def listening(self) -> None:
        async def is_so() -> bool:
            assert self._serving is not None
            if self._serving.done():
                await self._serving
            return {"starttls", "tls"} <= self.addresses.keys()

        await eventually(is_so, _STARTED_SECONDS)

    def terminate(self) -> None:
        """Ask it to stop, as an operator does."""
        os.kill(os.getpid(), signal.SIGTERM)

    async def stopped(self) -> None:
        """Wait until it has left. Raises what it ended with."""
        assert self._serving is not None
        serving, self._serving = self._serving, None
        await asyncio.wait_for(serving, _STOPPED_SECONDS)

    async def end(self) -> None:
        for client in self._clients:
            await client.vanish()
        if self._serving is not None:
            self.terminate()
            await self.stopped()
        await self.store.close()

    async def _serve(self) -> None:
        with listeners_of(serve.log, self.addresses):
            try:
                await serve.run(self.settings)
            finally:
                for number in (signal.SIGTERM, signal.SIGINT):
                    asyncio.get_running_loop().remove_signal_handler(number)

    # -- its clients

    async def connected(self, listener: Listener = "tls") -> Client:
        """A client that has heard nothing yet."""
        client = await Client.connect(self.addresses[listener], self.tls if listener == "tls" else None)
        self._clients.append(client)
        return client

    async def client(self, listener: Listener = "tls", *, log_in: bool = True) -> Client:
        """A client that may send mail, under TLS."""
        client = await self.connected(listener)
        await client.expect(220)
        await client.command(250, "EHLO client.example")
        if listener == "starttls":
            await client.command(220, "STARTTLS")
            await client.start_tls(self.tls)
            await client.command(250, "EHLO client.example")
        if log_in and listener != "plaintext":
            assert (await client.log_in()).startswith("235")
        return client

    async def has_counted(self, name: str, value: int) -> bool:
        """Does one of the core's counters (`Server.stats`) show this?"""
        return REGISTRY.get_sample_value(f"smtp_core_{name}") == value

    # -- what became of the mail

    async def stored(self) -> list[UUID]:
        """All that Postgres has, oldest first."""
        return [row["id"] for row in await self.sql("SELECT id FROM envelopes ORDER BY id")]

    async def body(self, envelope_id: UUID) -> bytes:
        (row,) = await self.sql(
            "SELECT coalesce(content, (SELECT string_agg(p.content, ''::bytea ORDER BY number) FROM content_parts p "
            "WHERE p.envelope_id = e.id)) AS content FROM envelopes e WHERE id = $1",
            envelope_id,
        )
        return bytes(row["content"])

    async def sql(self, statement: str, *arguments: Any) -> list[Any]:
        return await self.postgres.sql(statement, *arguments, database=self.settings.db_name)

    async def fill_disk(self, when: str = "true") -> None:
        """From now on Postgres has no space for an envelope of which `when` holds, until `clear_disk`."""
        await self.sql(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END$$"
        )
        await self.sql(
            "CREATE TRIGGER full_disk BEFORE INSERT ON envelopes "
            f"FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION full_disk()"
        )

    async def clear_disk(self) -> None:
        await self.sql("DROP TRIGGER full_disk ON envelopes")

    async def is_queued(self, *envelope_ids: UUID) -> bool:
        """Are they on the stream? Told behind the client's back, so it may take a moment."""
        answer = await asyncio.to_thread(self.valkey.command, b"XRANGE", _STREAM, b"-", b"+")
        return all(envelope_id.bytes in answer for envelope_id in envelope_ids)


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)


@contextlib.contextmanager
def listeners_of(logger: logging.Logger, addresses: dict[str, Address]) -> Any:
    """While the block runs, `addresses` learns where the service says it listens."""

    class Learner(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if vars(record).get("action") == "listening":
                assert isinstance(record.args, tuple)
                name, host, port = record.args
                addresses[str(name)] = str(host), int(str(port))

    learner, level = Learner(), logger.level
    logger.addHandler(learner)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(learner)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def client_tls(authority: Authority) -> ssl.SSLContext:
    """How a client looks at the server's certificate."""
    return ssl.create_default_context(cafile=authority.ca_file)


@pytest.fixture(scope="session")
def smtp_settings(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Listeners on free ports with a certificate, and short time-outs."""
    file = authority.issue("localhost")
    return {
        "data_dir": tmp_path_factory.mktemp("data"),
        "hostname": "mx.example.com",
        "smtp_starttls_port": 0,
        "smtp_tls_port": 0,
        "smtp_add_missing_headers": False,  # so that what is stored can be compared with what was sent
        "tls_cert_file": file,
        "tls_key_file": file,
        "redis_timeout_seconds": 1.0,
        "db_timeout_seconds": 2.0,
        "shutdown_timeout_seconds": 10.0,
        "smtp_login_delay_seconds": 0.0,
    }


@pytest.fixture(scope="session")
def password_hash() -> str:
    """Cheap to check: what argon2 costs is not tested here."""
    return PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)


MakeHouse = Callable[..., Awaitable[House]]


@pytest.fixture
async def make_house(
    postgres: PostgresServer,
    valkey: ValkeyServer,
    smtp_settings: dict[str, Any],
    client_tls: ssl.SSLContext,
    password_hash: str,
) -> AsyncIterator[MakeHouse]:
    """`await make_house(setting=value, ...)`: a house whose service is not started yet; ended after the test."""
    made: list[House] = []

    async def make(**settings: Any) -> House:
        database = await postgres.new_database()
        values = {**smtp_settings, "redis_url": valkey.url, **settings}
        loaded = postgres.settings(database, **values)
        store = await Store.connect(loaded, purpose="test")
        tenant = await store.create_tenant("acme")
        credential = await store.create_credential(tenant.id, USERNAME, password_hash)
        made.append(House(loaded, store, credential, client_tls, postgres, valkey))
        return made[-1]

    yield make
    for house in made:
        await house.end()


@pytest.fixture
async def house(make_house: MakeHouse) -> House:
    """A running service with small limits and the defaults otherwise."""
    made = await make_house(smtp_max_message_bytes=8 * 1024 * 1024, smtp_max_recipients=3)
    await made.start()
    return made
