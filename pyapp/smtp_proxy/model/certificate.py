"""Certificates that the whole fleet serves, and what their issuer remembers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from smtp_proxy.sealing import Sealed

Challenge = Literal["http-01", "dns-01"]
CertificateState = Literal["current", "replaced", "revoked", "removed"]


@dataclass(frozen=True, slots=True)
class StoredCertificate:
    """A certificate with its key. Of each name one is `current`, which every replica serves."""

    id: UUID
    name: str  # what it is declared as, and its folder in TLS_CERT_DIR
    names: tuple[str, ...]  # DNS names, lower case
    chain: str = field(repr=False)  # PEM, the certificate itself first
    sealed: Sealed = field(repr=False)  # PKCS #8 (PEM)
    not_before: datetime
    not_after: datetime
    directory: str = ""  # URL of the ACME directory that it is from; "": imported
    renew_at: datetime | None = None  # chosen within the window that the CA suggests (RFC 9773 4.2)
    ask_again_at: datetime | None = None  # when that may have changed
    state: CertificateState = "current"
    replaced_by: UUID | None = None
    created_at: datetime | None = None

    @property
    def context(self) -> str:
        """What its sealed key is bound to."""
        return f"certificates.sealed_key of {self.id}"


@dataclass(frozen=True, slots=True)
class AcmeAccount:
    """An account at a CA (RFC 8555 7.3)."""

    id: UUID
    directory: str
    kid: str  # its URL
    sealed: Sealed = field(repr=False)  # PKCS #8 (PEM)

    @property
    def context(self) -> str:
        """What its sealed key is bound to."""
        return f"acme_accounts.sealed_key of {self.id}"


@dataclass(frozen=True, slots=True)
class CertificateOrder:
    """A certificate that is wanted, and how the last attempts to get it went."""

    name: str
    names: tuple[str, ...]
    challenge: Challenge = "http-01"
    declared_by: Literal["file", "operator"] = "operator"
    attempts: int = 0  # failed since the last success
    next_try_at: datetime | None = None  # not before
    asked_at: datetime | None = None  # an operator wants it now
    last_error: str | None = None
    alerted_at: datetime | None = None
