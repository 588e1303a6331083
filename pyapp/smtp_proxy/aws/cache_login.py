"""The login of ElastiCache by IAM: a token in place of a password, signed with the task's role, good for 15 minutes.

A token is a presigned request `connect` of the service `elasticache` (`tokens`). ElastiCache looks at it when a
connection logs in and never again, and ends the connection after 12 hours, whereupon the client connects anew with
another. So nothing is stored anywhere, and nothing has to be rotated.

A token serves all connections of the next minutes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from smtp_proxy.aws.tokens import GOOD_SECONDS, Signer

if TYPE_CHECKING:
    from smtp_proxy.config import Settings

# Whoever connects with it may take a while, and clocks differ by less than this.
_USED_SECONDS: Final = 600.0
# A token that is refused though it is as new as this is not refused for its age.
_NEW_SECONDS: Final = 5.0


class CacheLogin:
    """Tokens for one user of one cache (its replication group's id). `REDIS_IAM=USER@CACHE` names both."""

    def __init__(self, user: str, cache: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.user = user
        self._cache = cache
        self._monotonic = monotonic
        self._signer = Signer("REDIS_IAM", "elasticache")
        self._token = ""
        self._signed_at = -GOOD_SECONDS * 1.0
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache-login")

    async def token(self) -> str:
        """Raises ConfigurationError: AWS_REGION is missing; SecretUnavailable: no credentials of AWS at present."""
        async with self._turn:
            if self._monotonic() - self._signed_at >= _USED_SECONDS:
                signed_at = self._monotonic()
                self._token = await asyncio.get_running_loop().run_in_executor(self._thread, self._sign)
                self._signed_at = signed_at
            return self._token

    async def renew(self) -> bool:
        """The token was refused. Whether the next one is another, which may be taken: the role's keys may be new."""
        async with self._turn:
            if self._monotonic() - self._signed_at < _NEW_SECONDS:
                return False
            self._signed_at = -GOOD_SECONDS * 1.0
            return True

    # -- below

    def _sign(self) -> str:
        return self._signer.sign(self._cache, {"Action": "connect", "User": self.user})


def cache_login(settings: Settings) -> CacheLogin | None:
    """None: REDIS_IAM is not set. Raises ConfigurationError: AWS_REGION is missing."""
    user, _, cache = settings.redis_iam.partition("@")
    if not cache:
        return None
    Signer("REDIS_IAM", "elasticache").region("the cache")
    return CacheLogin(user, cache)
