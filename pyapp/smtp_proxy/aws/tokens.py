"""Tokens that AWS takes in place of a password: a presigned request `connect` (Signature Version 4) without its scheme.

Signing itself is local. The credentials behind it may be a question to the task's agent, and that blocks: whoever has a
loop lets a thread do it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from smtp_proxy.errors import ConfigurationError, SecretUnavailable

# At most 15 minutes, of ElastiCache and of RDS alike. Looked at when a connection logs in, and never again.
GOOD_SECONDS: Final = 900


class Signer:
    """Signs for one service of AWS with the task's role. `setting` is what errors name."""

    def __init__(self, setting: str, service: str) -> None:
        self._setting = setting
        self._service = service
        self._signer: Any = None
        self._session: Any = None  # the signer has a weak reference to what belongs to it, and does not work without

    def sign(self, host: str, query: Mapping[str, str]) -> str:
        """Blocks. Raises ConfigurationError: AWS_REGION is missing; SecretUnavailable: no credentials at present."""
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - slow to load, and for AWS alone

        request = {
            "method": "GET",
            "url": f"https://{host}/?{urlencode(query)}",
            "body": {},
            "headers": {},
            "context": {},
        }
        try:
            if self._signer is None:
                self._signer = self._make()
            signed = self._signer.generate_presigned_url(request, "connect", expires_in=GOOD_SECONDS)
        except BotoCoreError as error:
            raise SecretUnavailable(f"{self._setting}: no token can be signed: {error}; see the task's role") from None
        return str(signed).removeprefix("https://")

    def region(self, of: str) -> str:
        """`of` is what is in it, for the error. Raises ConfigurationError."""
        import botocore.session  # noqa: PLC0415 - see `sign`

        # ECS says AWS_REGION, and botocore looks at AWS_DEFAULT_REGION alone.
        region = botocore.session.get_session().get_config_variable("region") or os.environ.get("AWS_REGION")
        if not region:
            raise ConfigurationError(f"{self._setting} needs AWS_REGION: the region of {of}")
        return str(region)

    def _make(self) -> Any:
        import botocore.session  # noqa: PLC0415 - see `sign`
        from botocore.model import ServiceId  # noqa: PLC0415
        from botocore.signers import RequestSigner  # noqa: PLC0415

        session = self._session = botocore.session.get_session()
        credentials = session.get_credentials()
        if credentials is None:
            raise SecretUnavailable(f"{self._setting}: there are no credentials of AWS; see the task's role")
        events = session.get_component("event_emitter")
        region = self.region("what is logged in to")
        return RequestSigner(ServiceId(self._service), region, self._service, "v4", credentials, events)
