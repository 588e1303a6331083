"""Keys of the HTTP API: made, and told from what is none.

A key is 256 random bits, so its SHA-256 is all that need be kept: nobody finds the one from the other, and a request
costs no password hash. A key that was leaked is known by its beginning (scanners of repositories look for such).
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

from smtp_proxy.clock import Clock
from smtp_proxy.errors import InvalidValue, StoreError
from smtp_proxy.model.api_key import ApiKey, ApiScope

log = logging.getLogger(__name__)

PREFIX: Final = "spk_"
_RANDOM_BYTES: Final = 32
_KEY: Final = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62})")
_NOTED_AGAIN: Final = timedelta(hours=1)
_REMEMBERED_MAX: Final = 10_000


class ApiKeyStore(Protocol):
    """What is needed of the store."""

    async def create_api_key(
        self, tenant: str, name: str, digest: bytes, scopes: Iterable[ApiScope], expires_at: datetime | None = None
    ) -> ApiKey: ...
    async def api_key_by_digest(self, digest: bytes) -> ApiKey | None: ...
    async def note_api_key_used(self, key_id: UUID) -> None: ...


async def create_api_key(
    store: ApiKeyStore, tenant: str, name: str, scopes: Iterable[ApiScope], expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """Give a tenant (by name) a key; returns it as it is kept, and the key itself, which is not kept anywhere.

    Raises:
        InvalidValue: the name can not be used, or there is no scope.
        NotFound: no such tenant.
        AlreadyExists: the tenant has a valid key of that name.
    """
    if not _NAME.fullmatch(name):
        raise InvalidValue(f"{name!r} can not name a key: 1 to 63 letters, digits, '.', '_' and '-', no sign first")
    wanted = frozenset(scopes)
    if not wanted:
        raise InvalidValue(f"a key without a scope opens nothing; scopes are {', '.join(ApiScope)}")
    key = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    return await store.create_api_key(tenant, name, _digest(key), wanted, expires_at), key


class ApiKeyChecker:
    """Who comes with a key. Each request asks the store, so that a key ends with the moment it is revoked."""

    def __init__(self, store: ApiKeyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._noted: dict[UUID, datetime] = {}  # when the use of a key was last to be noted, here

    async def find(self, key: str) -> ApiKey | None:
        """None: it opens nothing (any more). Raises StoreUnavailable."""
        if not _KEY.fullmatch(key):
            return None  # nothing that the store need be asked
        found = await self._store.api_key_by_digest(_digest(key))
        now = self._clock.now()
        if found is None or not found.is_valid(now):
            return None
        if found.last_used_at is None or now - found.last_used_at >= _NOTED_AGAIN:
            await self._note(found, now)
        return found

    async def _note(self, key: ApiKey, now: datetime) -> None:
        """Try it once an hour: a server that only reads costs the store its connections each time."""
        tried = self._noted.get(key.id)
        if tried is not None and now - tried < _NOTED_AGAIN:
            return
        if len(self._noted) >= _REMEMBERED_MAX:
            self._noted.clear()
        self._noted[key.id] = now
        try:
            await self._store.note_api_key_used(key.id)
        except StoreError as error:  # no reason to turn anybody away
            log.warning("the use of a key is not noted: %s", error, extra={"action": "key_not_noted", "key": key.name})


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("ascii")).digest()
