"""Idempotent submission: by what a message is known again."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class SubmissionKey:
    """The same credential and digest within `seconds` of the first is the same message."""

    credential_id: UUID
    digest: bytes  # SHA-256
    seconds: int
