"""Logins by client certificate (AUTH EXTERNAL): who a certificate stands for, remembered for a while.

The certificate was verified in the TLS handshake. What is left is to find the credential that it was given to: by its
fingerprint, which counts before its names, or by a name. Answers are kept as those of passwords are (`logins`), and
dropped when the database says that something changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from smtp_proxy.errors import SmtpProxyError
from smtp_proxy.model.tenant import Credential, Identity
from smtp_proxy.telemetry.metrics import LOGINS
from smtp_proxy.tenants.found import Found

if TYPE_CHECKING:
    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings
    from smtp_proxy.tenants.logins import Verdict

_REJECTED_SECONDS = 10.0
_CACHE_MAX = 20_000
_RESULTS = {True: "accepted", False: "rejected", None: "unavailable"}

log = logging.getLogger(__name__)

# Username asked for, fingerprint.
_Key = tuple[str, str]


class CertificateSource(Protocol):
    """What is needed of the store."""

    async def credential_by_username(self, username: str) -> Credential | None: ...
    async def usernames_by_certificate(self, identities: Sequence[str]) -> dict[str, str]: ...


class CertificateChecker:
    """Finds out whose a certificate is; `forget` is for `store.listen_credentials`."""

    def __init__(self, store: CertificateSource, settings: Settings, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lives = settings.login_cache_seconds
        self._known: dict[_Key, tuple[Found, float]] = {}  # with the monotonic time of its end
        self._running: dict[_Key, asyncio.Task[Found | None]] = {}
        self._generation = 0

    def forget(self) -> None:
        """Drop all that is known; also what is just being found out."""
        self._known.clear()
        self._running.clear()
        self._generation += 1

    def cached(self, username: str, fingerprint: str, address: str = "") -> Identity | Literal[False] | None:
        """What is known without asking anybody; None: nothing. `address`: the client's."""
        found, ends = self._known.get((username, fingerprint), (None, 0.0))
        return found.at(address) if found is not None and ends > self._clock.monotonic() else None

    async def check(self, username: str, fingerprint: str, names: Sequence[str], address: str = "") -> Verdict:
        """Log in; never raises for what is wrong with the store or the login.

        Args:
            username: whom the client asks to be; "": whoever the certificate stands for.
            fingerprint: SHA-256 of the certificate, hexadecimal digits.
            names: whom it names, as the core tells.
            address: the client's.
        """
        verdict: Verdict = self.cached(username, fingerprint, address)
        if verdict is None:
            found = await self._joined((username, fingerprint), names)
            verdict = None if found is None else found.at(address)
        LOGINS.labels(_RESULTS[verdict if verdict is None else bool(verdict)]).inc()
        return verdict

    # -- below

    async def _joined(self, key: _Key, names: Sequence[str]) -> Found | None:
        """Those that ask the same at the same time are one question. One of them leaving does not end it."""
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._find(key, names))
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    async def _find(self, key: _Key, names: Sequence[str]) -> Found | None:
        generation = self._generation
        asked, fingerprint = key
        try:
            identities = [f"sha256:{fingerprint}", *names]
            username = choose(await self._store.usernames_by_certificate(identities), fingerprint, asked)
            credential = None if username is None else await self._store.credential_by_username(username)
        except SmtpProxyError as error:
            log.warning("a login can not be checked: %s", error, extra={"action": "login_unavailable"})
            return None
        found = Found(False)
        if credential is not None and credential.disabled_at is None:
            identity = Identity(credential.tenant_id, credential.id, credential.username, credential.allowed_senders)
            found = Found(identity, credential.allowed_networks)
        if generation == self._generation:
            self._remember(key, found)
        return found

    def _remember(self, key: _Key, found: Found) -> None:
        lives = self._lives if found.verdict else min(self._lives, _REJECTED_SECONDS)
        if lives <= 0:
            return
        while len(self._known) >= _CACHE_MAX:
            del self._known[next(iter(self._known))]  # the oldest
        self._known[key] = (found, self._clock.monotonic() + lives)

    def _ended(self, key: _Key, task: asyncio.Task[Found | None]) -> None:
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("checking a login failed", exc_info=error, extra={"action": "login_failed"})


def choose(owners: Mapping[str, str], fingerprint: str, asked: str) -> str | None:
    """Which of the usernames that a certificate stands for is meant; None: none.

    Args:
        owners: username of each of its identities that has one.
        fingerprint: hexadecimal digits.
        asked: the username asked for, or "".
    """
    usernames = set(owners.values())
    if asked:
        return asked if asked in usernames else None
    by_fingerprint = owners.get(f"sha256:{fingerprint}")
    if by_fingerprint is not None:
        return by_fingerprint
    if len(usernames) > 1:  # RFC 4422 A.1: the client has to say which.
        log.warning("a certificate stands for several logins: %s", ", ".join(sorted(usernames)))
        return None
    return next(iter(usernames), None)
