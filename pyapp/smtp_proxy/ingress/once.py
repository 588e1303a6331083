"""Idempotent submission: a message that was taken before is answered 250 with its first id, and not stored again.

Only for tenants that want it (`tenants.idempotency_seconds`); all others pay one look into a dictionary for a batch.
A message goes by its X-Idempotency-Key: the client's word that it is the same. Else by Message-ID, reverse-path and
recipients together, since one message may well be submitted once for each of its recipients.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final, Protocol
from uuid import UUID

from smtp_proxy.core import BODY, CREDENTIAL_ID, RECIPIENTS, REVERSE_PATH, TENANT_ID
from smtp_proxy.ingress.refresh import Refreshed
from smtp_proxy.model.submission import SubmissionKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smtp_proxy.core import EnvelopeRow

# A field with its folded lines (RFC 5322 2.2.3).
_FIELD: Final = re.compile(
    rb"^(X-Idempotency-Key|Message-ID)[ \t]*:((?:[^\r\n]|\r\n[ \t])*)", re.IGNORECASE | re.MULTILINE
)
_HEADER_MAX_BYTES: Final = 256 * 1024


class OnceStore(Protocol):
    """The part of `store.Store` that knows who wants it. May raise StoreError."""

    async def idempotent_tenants(self) -> dict[UUID, int]: ...


class Once(Refreshed):
    """Knows for whom submission is idempotent, and messages again. One per service."""

    def __init__(self, store: OnceStore) -> None:
        super().__init__("tenants' policies", "policies_unread")
        self._store = store
        self._seconds: dict[bytes, int] = {}

    async def load(self) -> None:
        """Read once. Raises StoreError."""
        found = await self._store.idempotent_tenants()
        self._seconds = {tenant_id.bytes: seconds for tenant_id, seconds in found.items()}

    def concerns(self, tenant_ids: Sequence[bytes]) -> bool:
        """Whether submission is idempotent for one of them."""
        return bool(self._seconds) and any(tenant_id in self._seconds for tenant_id in tenant_ids)

    def key(self, row: EnvelopeRow) -> SubmissionKey | None:
        """By what this message is known again; None: by nothing."""
        seconds = self._seconds.get(row[TENANT_ID])
        digest = digest_of(row) if seconds else None
        return SubmissionKey(UUID(bytes=row[CREDENTIAL_ID]), digest, seconds) if seconds and digest else None


def digest_of(row: EnvelopeRow) -> bytes | None:
    """SHA-256 of what a message is known by; None: it has neither of the two fields."""
    body = row[BODY]
    end = body.find(b"\r\n\r\n", 0, _HEADER_MAX_BYTES)
    fields: dict[bytes, bytes] = {}
    for match in _FIELD.finditer(body, 0, end + 2 if end >= 0 else min(len(body), _HEADER_MAX_BYTES)):
        fields.setdefault(match[1].lower(), b" ".join(match[2].split()))
    if given := fields.get(b"x-idempotency-key"):
        return hashlib.sha256(b"key\0" + given).digest()
    if given := fields.get(b"message-id"):
        envelope = "\0".join([row[REVERSE_PATH], *sorted(row[RECIPIENTS])]).encode()
        return hashlib.sha256(b"id\0" + given + b"\0" + envelope).digest()
    return None
