"""Logins: a credential checked once with argon2id, then remembered for a while.

Thousands of connections of one application bring the same username and password. What was verified is kept under a
keyed hash of both (the key lives and dies with this process, so the memory holds nothing that can be tried offline),
for `login_cache_seconds`, and dropped as a whole when the database says that credentials changed. Equal checks that
run at the same time are one check. A wrong password is remembered too, for a shorter while.

The core keeps good ones as well (`keep`), for what is left of their time and until `forget`, and so most of them never
come here.

A credential may have networks that it is taken from. From elsewhere the right password fares exactly as a wrong one:
looked up and hashed anew, whatever is remembered for those who may, and then remembered as wrong for the same while.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from smtp_proxy.errors import SmtpProxyError
from smtp_proxy.model.tenant import Credential, Identity
from smtp_proxy.telemetry.metrics import LOGINS
from smtp_proxy.tenants.found import Found
from smtp_proxy.tenants.networks import admits, client_of
from smtp_proxy.tenants.passwords import DUMMY_HASH, Passwords

if TYPE_CHECKING:
    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings

# An identity: logged in. False: wrong username or password, or disabled. None: cannot be told now (454 4.7.0).
Verdict: TypeAlias = Identity | Literal[False] | None

_REJECTED_SECONDS = 10.0
_CACHE_MAX = 20_000
# A credential that is tried from elsewhere is logged so often; a client that does so rarely does it once.
_LOGGED_SECONDS = 60.0
_LOGGED_MAX = 1000

log = logging.getLogger(__name__)


class CredentialSource(Protocol):
    """What is needed of the store."""

    async def credential_by_username(self, username: str) -> Credential | None: ...


class LoginChecker:
    """Checks usernames and passwords; `forget` is for `store.listen_credentials`."""

    def __init__(
        self, store: CredentialSource, settings: Settings, clock: Clock, passwords: Passwords | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._passwords = passwords or Passwords(settings.login_hash_threads)
        self._lives = settings.login_cache_seconds
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, tuple[Found, float]] = {}  # with the monotonic time of its end
        self._running: dict[bytes, asyncio.Task[Found | None]] = {}
        self._waiting_max = settings.login_queue_max
        self._waiting_max_per_client = settings.login_queue_max_per_address or settings.login_queue_max
        self._ipv6_prefix_bits = settings.smtp_ipv6_prefix_bits
        self._waiting: Counter[str] = Counter()  # checks under way, by who began them
        self._logged: dict[str, float] = {}
        # Those that wait here hold neither a thread nor one of the store's connections, which mail needs too.
        self._slots = asyncio.Semaphore(settings.login_hash_threads * 2)
        self._generation = 0

    def forget(self) -> None:
        """Drop all that is known; also what a check now under way will find out."""
        self._known.clear()
        self._running.clear()
        self._generation += 1

    def cached(self, username: str, password: str, address: str = "") -> Identity | Literal[False] | None:
        """What is known without asking anybody; None: nothing. `address`: the client's."""
        return self._look(username, password, address)[1]

    async def check(self, username: str, password: str, address: str = "") -> Verdict:
        """Log in from that address; never raises for what is wrong with the store or the login."""
        digest, known = self._look(username, password, address)
        verdict: Verdict = known
        if verdict is None:
            generation = self._generation
            found = await self._joined(digest, username, password, address)
            verdict = None if found is None else found.at(address)
            if found is not None and found.verdict and verdict is False:
                # After the answer: it must not take longer than that to a wrong password.
                asyncio.get_running_loop().call_soon(self._tell_elsewhere, username, address)
                if generation == self._generation:
                    self._remember(self._digest(username, password, elsewhere=True), Found(False))
        LOGINS.labels(_RESULTS[verdict if verdict is None else bool(verdict)]).inc()
        return verdict

    def keep(self, username: str, password: str) -> tuple[float, list[str]] | None:
        """For how many seconds more the core may take this login for good without asking; None: not at all.

        With it the networks that it is taken from (none: from everywhere). Whoever keeps it forgets it when this one
        does.
        """
        found, ends = self._known.get(self._digest(username, password), (None, 0.0))
        seconds = ends - self._clock.monotonic()
        if found is None or not found.verdict or seconds <= 0:
            return None
        return seconds, [str(network) for network in found.networks]

    async def check_many(self, requests: Sequence[tuple[str, str, str]]) -> list[Verdict]:
        """Check (username, password, client address) each; verdicts in the same order."""
        return list(await asyncio.gather(*(self.check(*request) for request in requests)))

    def close(self) -> None:
        """Drop the threads."""
        self._passwords.close()

    # -- below

    def _look(self, username: str, password: str, address: str) -> tuple[bytes, Identity | Literal[False] | None]:
        """Under which digest this login goes from that address, and what is known of it."""
        digest = self._digest(username, password)
        found = self._recall(digest)
        if found is None or admits(found.networks, address):
            return digest, None if found is None else found.verdict
        elsewhere = self._digest(username, password, elsewhere=True)
        return elsewhere, None if self._recall(elsewhere) is None else False

    async def _joined(self, digest: bytes, username: str, password: str, address: str) -> Found | None:
        """Wait for the check of just this login, starting it if nobody has. One waiter leaving does not end it."""
        task = self._running.get(digest)
        if task is None:
            client = client_of(address, self._ipv6_prefix_bits)
            if len(self._running) >= self._waiting_max or self._waiting[client] >= self._waiting_max_per_client:
                log.warning("too many logins wait to be checked", extra={"action": "logins_overloaded"})
                return None
            self._waiting[client] += 1
            task = asyncio.create_task(self._verify(username, password))
            self._running[digest] = task
            task.add_done_callback(lambda done: self._ended(digest, client, done))
        return await asyncio.shield(task)

    async def _verify(self, username: str, password: str) -> Found | None:
        async with self._slots:
            return await self._verify_now(username, password)

    async def _verify_now(self, username: str, password: str) -> Found | None:
        generation = self._generation
        try:
            credential = await self._lookup(username)
        except SmtpProxyError as error:
            log.warning("a login can not be checked: %s", error, extra={"action": "login_unavailable"})
            return None
        usable = credential is not None and credential.disabled_at is None
        matches = await self._passwords.verify(
            credential.password_hash if credential is not None and usable else DUMMY_HASH, password
        )
        found = Found(False)
        if credential is not None and usable and matches:
            identity = Identity(credential.tenant_id, credential.id, credential.username, credential.allowed_senders)
            found = Found(identity, credential.allowed_networks)
        if generation == self._generation:
            self._remember(self._digest(username, password), found)
        return found

    async def _lookup(self, username: str) -> Credential | None:
        # Names that no credential can have are not worth asking for, and Postgres refuses some of them.
        return await self._store.credential_by_username(username) if username.isprintable() else None

    def _digest(self, username: str, password: str, *, elsewhere: bool = False) -> bytes:
        name = username.encode("utf-8", "surrogatepass")
        secret = password.encode("utf-8", "surrogatepass")
        content = bytes([elsewhere]) + len(name).to_bytes(4, "big") + name + secret
        return hashlib.blake2b(content, key=self._key, digest_size=32).digest()

    def _recall(self, digest: bytes) -> Found | None:
        found, ends = self._known.get(digest, (None, 0.0))
        if found is None or ends > self._clock.monotonic():
            return found
        del self._known[digest]
        return None

    def _remember(self, digest: bytes, found: Found) -> None:
        lives = self._lives if found.verdict else min(self._lives, _REJECTED_SECONDS)
        if lives <= 0:
            return
        while len(self._known) >= _CACHE_MAX:
            del self._known[next(iter(self._known))]  # the oldest
        self._known[digest] = (found, self._clock.monotonic() + lives)

    def _tell_elsewhere(self, username: str, address: str) -> None:
        """In the log, for the operator; the client hears what everybody hears who has the wrong password."""
        now = self._clock.monotonic()
        if self._logged.get(username, -_LOGGED_SECONDS) + _LOGGED_SECONDS > now:
            return
        if len(self._logged) >= _LOGGED_MAX:
            self._logged.clear()
        self._logged[username] = now
        log.warning(
            "%s has the right password and may not log in from %s; `smtp-proxy credential networks` says from where",
            username,
            address or "an address that the proxy did not tell",
            extra={"action": "login_elsewhere"},
        )

    def _ended(self, digest: bytes, client: str, task: asyncio.Task[Found | None]) -> None:
        self._waiting[client] -= 1
        if self._waiting[client] <= 0:
            del self._waiting[client]
        if self._running.get(digest) is task:
            del self._running[digest]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("checking a login failed", exc_info=error, extra={"action": "login_failed"})


_RESULTS = {True: "accepted", False: "rejected", None: "unavailable"}
