"""Certificates in S3, `s3://BUCKET/NAME/`: the chain as PEM, and all of it as JSON with the key still sealed.

So a reader of the bucket alone has no key: SECRET_KEY_FILE opens it, as in the database. The bucket keeps versions. A
backup that fails is logged: the certificate is in the store and serves.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from smtp_proxy.certfiles.canary import try_out
from smtp_proxy.certfiles.check import check
from smtp_proxy.config import Settings
from smtp_proxy.errors import SmtpProxyError
from smtp_proxy.model.certificate import CertificateOrder, StoredCertificate
from smtp_proxy.sealing import Sealed, SecretKeys

log = logging.getLogger(__name__)

_WHOLE: Final = "certificate.json"
_CHAIN: Final = "fullchain.pem"


class Backup:
    """Does nothing where CERT_BACKUP_BUCKET is empty. `s3`: a boto3 client, for tests."""

    def __init__(self, settings: Settings, keys: SecretKeys, s3: Any = None) -> None:
        self._bucket = settings.cert_backup_bucket
        self._keys = keys
        self._s3 = s3

    async def save(self, certificate: StoredCertificate) -> bool:
        """Put it there; False: it could not be, which is logged."""
        if not self._bucket:
            return False
        try:
            await asyncio.to_thread(self._put, certificate)
        except Exception as error:  # whatever S3 or the network does
            log.warning(
                "certificate %s is not backed up to CERT_BACKUP_BUCKET %s: %s",
                certificate.name,
                self._bucket,
                _code(error),
                extra={"action": "backup_failed"},
            )
            return False
        return True

    async def load(self, order: CertificateOrder, now: datetime) -> StoredCertificate | None:
        """What is there of that order, if it is good and opens; None: nothing that could serve."""
        if not self._bucket:
            return None
        try:
            return await asyncio.to_thread(self._get, order, now)
        except Exception as error:  # whatever S3, the network or whoever wrote it does
            if _code(error) != "NoSuchKey":
                reason = str(error) if isinstance(error, SmtpProxyError) else _code(error)
                log.warning("certificate %s is not restored: %s", order.name, reason, extra={"action": "not_restored"})
            return None

    # -- below

    def _client(self) -> Any:
        if self._s3 is None:
            import boto3  # noqa: PLC0415 - slow to load, and for S3 alone

            # ECS says AWS_REGION, and boto3 looks at AWS_DEFAULT_REGION alone.
            self._s3 = boto3.client("s3", region_name=os.environ.get("AWS_REGION"))
        return self._s3

    def _put(self, certificate: StoredCertificate) -> None:
        # No encryption is named: "aws:kms" without a key would be AWS's own, in place of the one the bucket is set to.
        for name, content in (
            (_CHAIN, certificate.chain.encode()),
            (_WHOLE, json.dumps(_fields(certificate)).encode()),
        ):
            self._client().put_object(Bucket=self._bucket, Key=f"{certificate.name}/{name}", Body=content)

    def _get(self, order: CertificateOrder, now: datetime) -> StoredCertificate:
        answer = self._client().get_object(Bucket=self._bucket, Key=f"{order.name}/{_WHOLE}")
        found = _read(json.loads(answer["Body"].read()))
        key = self._keys.open(found.sealed, found.context)
        label = f"certificate {order.name} of the backup"
        check(found.chain.encode(), key, order.names, now, label)
        try_out(found.chain.encode(), key, label)
        return found


def _fields(c: StoredCertificate) -> dict[str, Any]:
    return {
        "id": str(c.id),
        "name": c.name,
        "names": c.names,
        "chain": c.chain,
        "sealed_key": base64.b64encode(c.sealed.data).decode(),
        "secret_key_id": c.sealed.key_id,
        "not_before": c.not_before.isoformat(),
        "not_after": c.not_after.isoformat(),
        "directory": c.directory,
    }


def _read(fields: dict[str, Any]) -> StoredCertificate:
    return StoredCertificate(
        UUID(fields["id"]),
        fields["name"],
        tuple(fields["names"]),
        fields["chain"],
        Sealed(fields["secret_key_id"], base64.b64decode(fields["sealed_key"])),
        datetime.fromisoformat(fields["not_before"]),
        datetime.fromisoformat(fields["not_after"]),
        fields["directory"],
    )


def _code(error: Exception) -> str:
    response = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", type(error).__name__))
