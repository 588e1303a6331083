"""The login of ElastiCache by IAM: a token in place of a password, signed with the task's role, good for 15 minutes.

A token is a presigned request `connect` (Signature Version 4, service `elasticache`) without its scheme. ElastiCache
looks at it when a connection logs in and never again, and ends the connection after 12 hours, whereupon the client
connects anew with another. So nothing is stored anywhere, and nothing has to be rotated.

Signing itself is local. The credentials behind it may be a question to the task's agent, and that blocks: a thread does
it, and a token serves all connections of the next minutes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from smtp_proxy.errors import ConfigurationError, SecretUnavailable

if TYPE_CHECKING:
    from smtp_proxy.config import Settings

_GOOD_SECONDS: Final = 900  # at most 15 minutes
# Whoever connects with it may take a while, and clocks differ by less than this.
_USED_SECONDS: Final = 600.0
# A token that is refused though it is as new as this is not refused for its age.
_NEW_SECONDS: Final = 5.0
_SERVICE: Final = "elasticache"


class CacheLogin:
    """Tokens for one user of one cache (its replication group's id). `REDIS_IAM=USER@CACHE` names both."""

    def __init__(self, user: str, cache: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.user = user
        self._cache = cache
        self._monotonic = monotonic
        self._signer: Any = None
        self._token = ""
        self._signed_at = -_GOOD_SECONDS * 1.0
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
            self._signed_at = -_GOOD_SECONDS * 1.0
            return True

    # -- below

    def _sign(self) -> str:
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - slow to load, and for AWS alone

        try:
            if self._signer is None:
                self._signer = _signer()
            query = urlencode({"Action": "connect", "User": self.user})
            request = {
                "method": "GET",
                "url": f"https://{self._cache}/?{query}",
                "body": {},
                "headers": {},
                "context": {},
            }
            signed = self._signer.generate_presigned_url(request, "connect", expires_in=_GOOD_SECONDS)
        except BotoCoreError as error:
            raise SecretUnavailable(f"REDIS_IAM: no token can be signed: {error}; see the task's role") from None
        return str(signed).removeprefix("https://")


def cache_login(settings: Settings) -> CacheLogin | None:
    """None: REDIS_IAM is not set. Raises ConfigurationError: AWS_REGION is missing."""
    user, _, cache = settings.redis_iam.partition("@")
    if not cache:
        return None
    _region()
    return CacheLogin(user, cache)


def _region() -> str:
    import botocore.session  # noqa: PLC0415 - see `_sign`

    # ECS says AWS_REGION, and botocore looks at AWS_DEFAULT_REGION alone.
    region = botocore.session.get_session().get_config_variable("region") or os.environ.get("AWS_REGION")
    if not region:
        raise ConfigurationError("REDIS_IAM needs AWS_REGION: the region of the cache")
    return str(region)


def _signer() -> Any:
    import botocore.session  # noqa: PLC0415 - see `_sign`
    from botocore.model import ServiceId  # noqa: PLC0415
    from botocore.signers import RequestSigner  # noqa: PLC0415

    session = botocore.session.get_session()
    credentials = session.get_credentials()
    if credentials is None:
        raise SecretUnavailable("REDIS_IAM: there are no credentials of AWS; see the task's role")
    events = session.get_component("event_emitter")
    return RequestSigner(ServiceId(_SERVICE), _region(), _SERVICE, "v4", credentials, events)
