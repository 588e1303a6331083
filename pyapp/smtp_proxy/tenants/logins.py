"""Logins: a credential checked once with argon2id, then remembered for a while.

Thousands of connections of one application bring the same username and password. What was verified is kept under a
keyed hash of both (the key lives and dies with this process, so the memory holds nothing that can be tried offline),
for `login_cache_seconds`, and dropped as a whole when the database says that credentials changed. Equal checks that
run at the same time are one check. A wrong password is remembered too, for a shorter while.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from smtp_proxy.errors import SmtpProxyError
from smtp_proxy.model.tenant import Credential, Identity
from smtp_proxy.telemetry.metrics import LOGINS
from smtp_proxy.tenants.passwords import DUMMY_HASH, Passwords

if TYPE_CHECKING:
    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings

# An identity: logged in. False: wrong username or password, or disabled. None: cannot be told now (454 4.7.0).
Verdict: TypeAlias = Identity | Literal[False] | None

_REJECTED_SECONDS = 10.0
_CACHE_MAX = 20_000
# Checks that may wait for a thread. At some 40 a second and thread, more would outwait their clients.
_WAITING_MAX = 500

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
        self._known: dict[bytes, tuple[Identity | Literal[False], float]] = {}  # verdict, monotonic time of its end
        self._running: dict[bytes, asyncio.Task[Verdict]] = {}
        # Those that wait here hold neither a thread nor one of the store's connections, which mail needs too.
        self._slots = asyncio.Semaphore(settings.login_hash_threads * 2)
        self._generation = 0

    def forget(self) -> None:
        """Drop all that is known; also what a check now under way will find out."""
        self._known.clear()
        self._running.clear()
        self._generation += 1

    def cached(self, username: str, password: str) -> Identity | Literal[False] | None:
        """What is known without asking anybody; None: nothing."""
        return self._recall(self._digest(username, password))

    async def check(self, username: str, password: str) -> Verdict:
        """Log in; never raises for what is wrong with the store or the login."""
        digest = self._digest(username, password)
        verdict: Verdict = self._recall(digest)
        if verdict is None:
            verdict = await self._joined(digest, username, password)
        LOGINS.labels(_RESULTS[verdict if verdict is None else bool(verdict)]).inc()
        return verdict

    async def check_many(self, requests: Sequence[tuple[str, str, str]]) -> list[Verdict]:
        """Check (username, password, client address) each; verdicts in the same order."""
        return list(await asyncio.gather(*(self.check(username, password) for username, password, _ in requests)))

    def close(self) -> None:
        """Drop the threads."""
        self._passwords.close()

    # -- below

    async def _joined(self, digest: bytes, username: str, password: str) -> Verdict:
        """Wait for the check of just this login, starting it if nobody has. One waiter leaving does not end it."""
        task = self._running.get(digest)
        if task is None:
            if len(self._running) >= _WAITING_MAX:
                log.warning("too many logins wait to be checked", extra={"action": "logins_overloaded"})
                return None
            task = asyncio.create_task(self._verify(digest, username, password))
            self._running[digest] = task
            task.add_done_callback(lambda done: self._ended(digest, done))
        return await asyncio.shield(task)

    async def _verify(self, digest: bytes, username: str, password: str) -> Verdict:
        async with self._slots:
            return await self._verify_now(digest, username, password)

    async def _verify_now(self, digest: bytes, username: str, password: str) -> Verdict:
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
        verdict: Identity | Literal[False] = False
        if credential is not None and usable and matches:
            verdict = Identity(credential.tenant_id, credential.id, credential.username, credential.allowed_senders)
        if generation == self._generation:
            self._remember(digest, verdict)
        return verdict

    async def _lookup(self, username: str) -> Credential | None:
        # Names that no credential can have are not worth asking for, and Postgres refuses some of them.
        return await self._store.credential_by_username(username) if username.isprintable() else None

    def _digest(self, username: str, password: str) -> bytes:
        name = username.encode("utf-8", "surrogatepass")
        secret = password.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(len(name).to_bytes(4, "big") + name + secret, key=self._key, digest_size=32).digest()

    def _recall(self, digest: bytes) -> Identity | Literal[False] | None:
        verdict, ends = self._known.get(digest, (None, 0.0))
        if verdict is None or ends > self._clock.monotonic():
            return verdict
        del self._known[digest]
        return None

    def _remember(self, digest: bytes, verdict: Identity | Literal[False]) -> None:
        lives = self._lives if verdict else min(self._lives, _REJECTED_SECONDS)
        if lives <= 0:
            return
        while len(self._known) >= _CACHE_MAX:
            del self._known[next(iter(self._known))]  # the oldest
        self._known[digest] = (verdict, self._clock.monotonic() + lives)

    def _ended(self, digest: bytes, task: asyncio.Task[Verdict]) -> None:
        if self._running.get(digest) is task:
            del self._running[digest]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("checking a login failed", exc_info=error, extra={"action": "login_failed"})


_RESULTS = {True: "accepted", False: "rejected", None: "unavailable"}
