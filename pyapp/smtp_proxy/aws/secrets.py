"""Settings whose value is in AWS Secrets Manager: read with the task's role, and again when it no longer works.

A setting `…_SECRET` names the secret by its ARN (or its name, in AWS_REGION), and after a `#` the key of a value within
its JSON. The environment holds no more than that (REQ-INFRA-ECS-010), and what is read stays in memory.

A secret is rotated while we run. Nobody is told; a login that is refused is the sign. Then the secret is read again, by
one of all those that were refused; in vain never more often than each `_SPACING_SECONDS`.

boto3 blocks. Each secret has a thread of its own for it, which an event loop waits for (`read_soon`, `renew_soon`):
were the calls in asyncio's common threads, a Secrets Manager that hangs would have one for every login that waits, and
hold up whatever else goes there. Without a loop, or at the start, call `read` itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from smtp_proxy.errors import ConfigurationError, SecretMissing, SecretUnavailable
from smtp_proxy.telemetry.metrics import SECRET_READS

log = logging.getLogger(__name__)

_SPACING_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 2.0
_READ_SECONDS: Final = 5.0
_ATTEMPTS: Final = 3
# arn:PARTITION:secretsmanager:REGION:ACCOUNT:secret:NAME
_ARN: Final = re.compile(r"arn:[^:]+:secretsmanager:(?P<region>[^:]+):\d{12}:secret:[^:]+")
_MISSING: Final = "ResourceNotFoundException"
# Those that waiting does not help; AccessDenied has two names. API reference, GetSecretValue, "Errors".
_NEXT_STEP: Final = {
    "AccessDeniedException": "allow secretsmanager:GetSecretValue on it to the task's role, and kms:Decrypt on its key",
    "AccessDenied": "allow secretsmanager:GetSecretValue on it to the task's role, and kms:Decrypt on its key",
    _MISSING: "there is no such secret, or it has no value: see its ARN and region",
    "DecryptionFailure": "allow kms:Decrypt on its key to the task's role",
    "InvalidRequestException": "it may be scheduled for deletion: restore it, or name another",
    "InvalidParameterException": "write the ARN of a secret, and #KEY for a value within its JSON",
    "UnrecognizedClientException": "the credentials of AWS are not valid: see the task's role",
    "ExpiredTokenException": "the credentials of AWS have expired: see the task's role",
}


@dataclass(frozen=True)
class SecretValue:
    """What a secret said. `repr` shows nothing of it."""

    text: str = field(repr=False)
    fields: dict[str, str] = field(repr=False, default_factory=dict)  # of its JSON; empty: it is none


class ManagedSecret:
    """One secret, and what it said last; for all threads."""

    def __init__(self, setting: str, reference: str) -> None:
        self.setting = setting
        self._name, _, self._key = reference.partition("#")
        self._lock = threading.Lock()
        self._value: SecretValue | None = None
        self._in_vain_at = float("-inf")
        self._api: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="secret")
        self._reading: Future[SecretValue] | None = None

    async def read_soon(self) -> SecretValue:
        """`read`, waited for. Those who come while it is asked for share the answer, also one that is an error.

        Called on the event loop alone.
        """
        if self._value is not None:
            return self._value
        if self._reading is None or self._reading.done():
            self._reading = self._thread.submit(self.read)
        # One who gives up waiting does not take it from the others.
        return await asyncio.shield(asyncio.wrap_future(self._reading))

    async def renew_soon(self, refused: SecretValue) -> SecretValue:
        """`renew`, waited for."""
        return await asyncio.wrap_future(self._thread.submit(self.renew, refused))

    def read(self) -> SecretValue:
        """What it said last; asked for the first time.

        Raises:
            ConfigurationError: it can not be read, or is not of the form that was said.
            SecretUnavailable: not now.
        """
        with self._lock:
            if self._value is None:
                self._value = self._fetch()
            return self._value

    def fresh(self) -> SecretValue:
        """What it says now; what it said last, if it can not be read again. Raises as `read`."""
        known = self._value
        return self.read() if known is None else self.renew(known)

    def renew(self, refused: SecretValue) -> SecretValue:
        """What it says now, if that may be something else than the one refused; never raises."""
        with self._lock:
            if self._value is not refused and self._value is not None:
                return self._value  # another who was refused has asked
            if time.monotonic() < self._in_vain_at + _SPACING_SECONDS:
                return refused
            try:
                value = self._fetch()
            except (ConfigurationError, SecretUnavailable) as error:
                log.warning("a secret can not be read again: %s", error, extra={"action": "secret_failed"})
                self._in_vain_at = time.monotonic()
                return refused
            if value.text != refused.text:
                log.info("%s: read again, and it is new", self.setting, extra={"action": "secret_renewed"})
                self._value = value
                return value
            self._in_vain_at = time.monotonic()
            return refused

    def _fetch(self) -> SecretValue:
        try:
            value = self._parsed(self._ask())
        except (ConfigurationError, SecretUnavailable):
            SECRET_READS.labels("failed").inc()
            raise
        same = self._value is not None and self._value.text == value.text
        SECRET_READS.labels("same" if same else "changed").inc()
        return value

    def _ask(self) -> str:
        # Slow to load, and most installations have no such setting.
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError  # noqa: PLC0415

        try:
            if self._api is None:
                self._api = client(self._name)
            answer = self._api.get_secret_value(SecretId=self._name)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _NEXT_STEP:
                kind = SecretMissing if code == _MISSING else ConfigurationError
                raise self._wrong(f"Secrets Manager says {code}: {_NEXT_STEP[code]}", kind) from None
            raise self._away(code or "an error") from None
        except NoRegionError:
            raise self._wrong("write the whole ARN, or set AWS_REGION") from None
        except NoCredentialsError:
            raise self._wrong("there are no credentials of AWS: give the task a role") from None
        except BotoCoreError as error:
            raise self._away(type(error).__name__) from None
        except ValueError:  # of an endpoint that is no URL
            raise self._wrong("AWS_ENDPOINT_URL can not be used") from None
        if "SecretString" not in answer:
            raise self._wrong("the secret is binary: store text or JSON")
        return str(answer["SecretString"])

    def _parsed(self, text: str) -> SecretValue:
        fields = _fields(text)
        if not self._key:
            return SecretValue(text, fields)
        if self._key not in fields:
            raise self._wrong(f"the secret is no JSON object with the key {self._key!r}: see what follows the #")
        return SecretValue(fields[self._key])

    def _wrong(self, what: str, kind: type[ConfigurationError] = ConfigurationError) -> ConfigurationError:
        return kind(f"{self.setting} names the secret {self._name}: {what}")

    def _away(self, what: str) -> SecretUnavailable:
        return SecretUnavailable(f"{self.setting}: Secrets Manager does not give {self._name} at present: {what}")


_secrets: dict[tuple[str, str], ManagedSecret] = {}
_secrets_lock = threading.Lock()


def managed(setting: str, reference: str) -> ManagedSecret:
    """The one object of this process for it: whoever is refused first renews it for all."""
    with _secrets_lock:
        return _secrets.setdefault((setting, reference), ManagedSecret(setting, reference))


def forget_all() -> None:
    """As if nothing had been read; for tests."""
    with _secrets_lock:
        _secrets.clear()


def client(name: str) -> Any:
    """Of boto3, in the region that an ARN says. Raises as botocore does."""
    import boto3  # noqa: PLC0415 - see `_ask`
    from botocore.config import Config  # noqa: PLC0415

    arn = _ARN.match(name)
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},  # with jitter
    )
    return boto3.session.Session().client(
        "secretsmanager", region_name=arn["region"] if arn is not None else None, config=config
    )


def _fields(text: str) -> dict[str, str]:
    """The plain values of a JSON object, as text."""
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(document, dict):
        return {}
    return {key: str(value) for key, value in document.items() if isinstance(value, str | int)}
