"""A password that this side makes up, for another service of AWS to read: RDS Proxy's (MIGRATE_PROXY_SECRET).

The secret is made without a value, so that no state of Terraform or Pulumi holds one. What it has is never changed
here: to have another, an operator puts one in and migrates again.
"""

from __future__ import annotations

import asyncio
import json
import secrets as random
from typing import Any, Final

from smtp_proxy.aws.secrets import client
from smtp_proxy.errors import ConfigurationError, SecretUnavailable

_PASSWORD_BYTES: Final = 32
_SETTING: Final = "MIGRATE_PROXY_SECRET"


async def password(reference: str, user: str) -> str:
    """Of `user`, as the secret says; made up and written there first, where it says nothing yet.

    Raises:
        ConfigurationError: it can not be read or written, or is another user's.
        SecretUnavailable: not now.
    """
    return await asyncio.to_thread(_password, reference, user)


def _password(reference: str, user: str) -> str:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - slow to load, and for AWS alone

    try:
        api = client(reference)
        said = _said(api, reference)
        if said is None:
            said = json.dumps({"username": user, "password": random.token_urlsafe(_PASSWORD_BYTES)})
            api.put_secret_value(SecretId=reference, SecretString=said)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "an error")
        raise ConfigurationError(
            f"{_SETTING} names {reference}: Secrets Manager says {code}: allow secretsmanager:GetSecretValue and "
            "PutSecretValue on it to the task's role, and kms:Decrypt and GenerateDataKey on its key"
        ) from None
    except BotoCoreError as error:
        raise SecretUnavailable(f"{_SETTING}: Secrets Manager can not be asked at present: {error}") from None
    return _of(said, user)


def _said(api: Any, reference: str) -> str | None:
    """None: it has no value yet."""
    try:
        return str(api.get_secret_value(SecretId=reference)["SecretString"])
    except api.exceptions.ResourceNotFoundException:
        # Said of a secret without a value as well as of one that is not there, which is found out by writing.
        return None


def _of(said: str, user: str) -> str:
    try:
        document = json.loads(said)
        named, password = document["username"], document["password"]
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(f"{_SETTING}: the secret is no JSON with `username` and `password`") from None
    if named != user or not (isinstance(password, str) and password.isascii() and password.isprintable() and password):
        raise ConfigurationError(
            f"{_SETTING}: the secret must say username {user} (MIGRATE_PROXY_LOGIN), and a password of printable ASCII"
        )
    return password
