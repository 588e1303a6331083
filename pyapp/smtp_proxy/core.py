"""The only door to the Rust server: its names, their types, and asyncio's way of waiting for it.

`CoreServer` waits for batches and logins without a thread and without a future per message. Nobody is woken while
there is work: whoever asks takes what is there, and only if nothing is there the core is asked to make its descriptor
readable, once. One wake-up then serves all who wait.

Not here: what is done with a batch; that is `ingress`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, Generic, Literal, TypeAlias, TypeVar

from smtp_proxy._core import (
    Batch,
    CertificateError,
    ConfigError,
    LoginBatch,
    Server,
    ServerConfig,
    is_mailbox,
    sender_pattern,
    transmission,
)
from smtp_proxy.model.dsn import DsnRow

__all__ = [
    "BODY",
    "BODY_TYPE",
    "CLIENT_ADDRESS",
    "CREDENTIAL_ID",
    "DEFERRED",
    "DSN",
    "HELO",
    "ID",
    "LANE",
    "OVER_RATE",
    "QUEUED",
    "RECEIVED_AT_US",
    "RECIPIENTS",
    "RECIPIENT_COUNT",
    "REVERSE_PATH",
    "SIZE_BYTES",
    "SMTPUTF8",
    "TENANT_ID",
    "TLS",
    "Batch",
    "Certificate",
    "CertificateError",
    "ConfigError",
    "CoreServer",
    "EnvelopeRow",
    "Gate",
    "Keep",
    "LoginBatch",
    "LoginRequest",
    "LoginVerdict",
    "Outline",
    "Server",
    "ServerConfig",
    "is_mailbox",
    "sender_pattern",
    "transmission",
]

# One envelope as `Batch.envelopes()` gives it; the places are named below.
EnvelopeRow: TypeAlias = tuple[
    bytes, bytes, bytes, str, list[str], bytes, int, bool, str, str, int, int, DsnRow | None, int
]
ID: Final = 0  # UUIDv7, 16 bytes
TENANT_ID: Final = 1
CREDENTIAL_ID: Final = 2
REVERSE_PATH: Final = 3  # "" is the null reverse-path
RECIPIENTS: Final = 4
BODY: Final = 5  # CRLF lines, dots unstuffed
BODY_TYPE: Final = 6  # model.envelope.BodyType
SMTPUTF8: Final = 7
HELO: Final = 8
CLIENT_ADDRESS: Final = 9  # IP address
TLS: Final = 10  # 0: none; else the number of its cipher suite
RECEIVED_AT_US: Final = 11  # microseconds since 1970
DSN: Final = 12  # None: nothing was asked for
LANE: Final = 13  # model.lane.Lane

# What may decide about one before it is stored, as `Batch.outlines()` gives it; ID and TENANT_ID are as above.
Outline: TypeAlias = tuple[bytes, bytes, int, int]
RECIPIENT_COUNT: Final = 2
SIZE_BYTES: Final = 3  # of the body

# What `Batch.answer` says of each envelope.
DEFERRED: Final = 0  # 451 4.3.0: not stored
QUEUED: Final = 1  # 250 2.0.0: stored, durably
OVER_RATE: Final = 2  # 450 4.7.1: not stored, its tenant is over its rate

Gate: TypeAlias = Literal["open", "busy", "store_down", "draining"]
# PEM chain, PEM key, OCSP response to be stapled (DER; empty: none), what errors shall call it.
Certificate: TypeAlias = tuple[bytes, bytes, bytes, str]
# Username, password, client's address; or username ("": whoever the certificate stands for), its fingerprint, its
# names, client's address.
LoginRequest: TypeAlias = tuple[str, str, str] | tuple[str, str, list[str], str]
# Tenant id, credential id, username, sender patterns (none: any): accepted. False: rejected. None: cannot be told now.
LoginVerdict: TypeAlias = tuple[bytes, bytes, str, Sequence[str]] | Literal[False] | None
# How many seconds the core may answer a login by itself, and from which networks (none: from everywhere).
Keep: TypeAlias = tuple[float, Sequence[str]]

_T = TypeVar("_T", Batch, LoginBatch)


class _Waiters(Generic[_T]):
    """Those who wait for one kind of thing, first come first served."""

    def __init__(self) -> None:
        self._futures: deque[asyncio.Future[_T]] = deque()

    def __bool__(self) -> bool:
        while self._futures and self._futures[0].done():  # was cancelled
            self._futures.popleft()
        return bool(self._futures)

    def add(self) -> asyncio.Future[_T]:
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._futures.append(future)
        return future

    def serve(self, thing: _T) -> None:
        self._futures.popleft().set_result(thing)


class CoreServer:
    """A `Server` on the running event loop. All of it belongs to the loop's thread."""

    def __init__(self, config: ServerConfig, *, batch_messages: int, batch_bytes: int) -> None:
        """Make it; nothing is opened yet.

        Args:
            config: what the server is told.
            batch_messages: most envelopes in one batch.
            batch_bytes: most bytes of bodies in one batch that has more than one envelope.

        Raises:
            CertificateError: a certificate cannot be used.
        """
        self.server: Final = Server(config)
        self._batch_bounds = (batch_messages, batch_bytes)
        self._batches: _Waiters[Batch] = _Waiters()
        self._logins: _Waiters[LoginBatch] = _Waiters()
        self._newcomers: _Waiters[Batch] = _Waiters()
        self._drained = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> dict[str, tuple[str, int]]:
        """Open the listeners; returns address and port of each. Raises ConfigError."""
        addresses = self.server.start()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.server.fileno(), self._serve)
        return addresses

    async def stop(self) -> None:
        """End at once, whoever is connected. Who still waits for a batch waits for ever."""
        if self._loop is not None:
            self._loop.remove_reader(self.server.fileno())
            self._loop = None
        await asyncio.to_thread(self.server.stop)

    async def next_batch(self) -> Batch:
        """Wait for envelopes, and take all that are there, within the bounds of a batch."""
        if not self._batches and (batch := self.server.next_batch(*self._batch_bounds)) is not None:
            return batch
        waiting = self._batches.add()
        self._serve()
        return await waiting

    def newcomers(self) -> asyncio.Future[Batch]:
        """Ask for a batch of those tenants alone that have nothing in a batch under way.

        Cancel it if it is no longer wanted; one that is done has a batch, to be answered like any other.
        """
        waiting = self._newcomers.add()
        self._serve()
        return waiting

    async def next_logins(self) -> LoginBatch:
        """Wait for a login. One at a time, so that a slow one never holds up the answer to another."""
        if not self._logins and (login := self.server.next_logins(1)) is not None:
            return login
        waiting = self._logins.add()
        self._serve()
        return await waiting

    def forget_logins(self) -> None:
        """Credentials may have changed: do not answer any login without asking, whatever was said before."""
        self.server.forget_logins()

    def set_gate(self, gate: Gate) -> None:
        """Say whether mail may come in."""
        self.server.set_gate(gate)

    def shut_tenant(self, tenant_id: bytes, seconds: float) -> None:
        """Answer 450 4.7.1 to MAIL of this tenant's sessions for so long; 0: no longer."""
        self.server.shut_tenant(tenant_id, seconds)

    def limit_sessions(self, limits: Sequence[tuple[bytes, int]]) -> None:
        """Let these tenants have so many sessions here, all others any number; more hear 421 4.7.0 at login."""
        self.server.limit_sessions(limits)

    def set_lanes(self, lanes: Sequence[tuple[bytes, int]]) -> None:
        """Say which lane mail of these tenants and credentials goes in; see `Server.set_lanes`."""
        self.server.set_lanes(lanes)

    def tenant_sessions(self) -> dict[bytes, int]:
        """How many sessions each tenant has here that has any."""
        return dict(self.server.tenant_sessions())

    def reload_tls(self, certificates: Sequence[Certificate], client_ca: bytes = b"", client_crl: bytes = b"") -> None:
        """Use these certificates from now on. Raises CertificateError, ConfigError; then those in place stay.

        May be called in a thread: it takes as long as a handshake with each certificate.
        """
        self.server.reload_tls(certificates, client_ca, client_crl)

    def ban(self, address: str, seconds: float) -> bool:
        """Turn a client away for so long; False: there is no room to remember it. Raises ValueError, ConfigError."""
        return self.server.ban(address, seconds)

    def bans(self) -> dict[str, float]:
        """Who is banned, and for how many seconds still; of an IPv6 network the first address."""
        return dict(self.server.bans())

    def lift_ban(self, address: str) -> bool:
        """End a ban; False: there was none. Raises ValueError."""
        return self.server.lift_ban(address)

    async def drain(self) -> None:
        """Close the listeners, send idle sessions away, and wait until the others have finished their message.

        Batches and logins must still be taken and answered meanwhile.
        """
        self.server.drain()
        if not self.server.is_drained():
            await self._drained.wait()

    def stats(self) -> dict[str, int]:
        """Counters and what is now; see `Server.stats`."""
        return self.server.stats()

    # -- below

    def _serve(self) -> None:
        """Give out what is there; arm the wake-up for who still waits, and for nobody else: it costs a write each."""
        server, batches, logins, newcomers = self.server, self._batches, self._logins, self._newcomers
        while True:
            while batches and (batch := server.next_batch(*self._batch_bounds)) is not None:
                batches.serve(batch)
            while newcomers and (batch := server.next_batch(*self._batch_bounds, True)) is not None:
                newcomers.serve(batch)
            while logins and (login := server.next_logins(1)) is not None:
                logins.serve(login)
            if not server.arm(bool(batches), bool(logins), bool(newcomers)):
                break
        if server.is_drained():  # Its signal was cleared with the others.
            self._drained.set()
