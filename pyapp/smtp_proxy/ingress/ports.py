"""What ingress asks of the rooms below, so that tests can put fakes there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

    from smtp_proxy.core import EnvelopeRow, Gate, Keep, LoginRequest, LoginVerdict, Outline
    from smtp_proxy.model.lane import Lane
    from smtp_proxy.model.limits import Placement
    from smtp_proxy.model.submission import SubmissionKey
    from smtp_proxy.store.accept import Encoded, Encoder
    from smtp_proxy.tenants.limits import Rulings
    from smtp_proxy.tenants.logins import Verdict


class Envelopes(Protocol):
    """A batch of the core; see `core.Batch`. Dropped unanswered, it defers."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def beside_quiet(self) -> bool: ...

    def __len__(self) -> int: ...

    def tenants(self) -> list[bytes]: ...

    def encode(self, sweep_at_us: int) -> Encoded: ...

    def ids(self) -> list[bytes]: ...

    def bulk_ids(self) -> list[bytes]: ...

    def outlines(self) -> list[Outline]: ...

    def split(self, ids: Sequence[bytes]) -> Envelopes: ...

    def envelopes(self) -> list[EnvelopeRow]: ...

    def commit(self) -> None: ...

    def defer(self) -> None: ...

    def rename(self, ids: Sequence[bytes]) -> None: ...

    def answer(self, answers: Sequence[int]) -> None: ...


class EnvelopeSource(Protocol):
    """Where batches come from: the core."""

    async def next_batch(self) -> Envelopes: ...

    def newcomers(self) -> asyncio.Future[Any]: ...


class Logins(Protocol):
    """Logins of the core; see `core.LoginBatch`. Dropped unanswered, they cannot be checked."""

    def requests(self) -> Sequence[LoginRequest]: ...

    def answer(self, verdicts: Sequence[LoginVerdict], keep: Sequence[Keep | None] = ()) -> None: ...


class LoginSource(Protocol):
    """Where logins come from: the core."""

    async def next_logins(self) -> Logins: ...


class Checker(Protocol):
    """Knows who may log in; see `tenants.logins.LoginChecker`."""

    def cached(self, username: str, password: str, address: str = "") -> Verdict: ...

    async def check(self, username: str, password: str, address: str = "") -> Verdict: ...

    def keep(self, username: str, password: str) -> Keep | None: ...


class CertificateChecker(Protocol):
    """Knows whose a client certificate is; see `tenants.certificates.CertificateChecker`."""

    def cached(self, username: str, fingerprint: str, address: str = "") -> Verdict: ...

    async def check(self, username: str, fingerprint: str, names: Sequence[str], address: str = "") -> Verdict: ...


class MailStore(Protocol):
    """The part of `store.Store` that takes mail in. Everything may raise StoreUnavailable."""

    async def accept_encoded(self, encoder: Encoder, messages: int, *, sweep_after_seconds: float) -> None: ...

    async def accept(
        self,
        batch: Sequence[EnvelopeRow],
        *,
        sweep_after_seconds: float,
        placements: Mapping[bytes, Placement] | None = None,
    ) -> None: ...

    async def accept_once(
        self,
        batch: Sequence[EnvelopeRow],
        keys: Mapping[bytes, SubmissionKey],
        *,
        sweep_after_seconds: float,
        placements: Mapping[bytes, Placement] | None = None,
    ) -> dict[bytes, bytes]: ...

    async def ping(self) -> None: ...

    async def probe_commit(self) -> None: ...


class Judge(Protocol):
    """Knows the tenants' limits; see `ingress.limits.LimitDesk`."""

    def concerns(self, tenant_ids: Sequence[bytes]) -> bool: ...

    async def judge(self, outlines: Sequence[Outline]) -> Rulings | None: ...


class Depth(Protocol):
    """How much is ready; the store's and the stream's. Raises StoreUnavailable or StreamUnavailable."""

    async def depth(self) -> int: ...


class Publisher(Protocol):
    """Puts ids, 16 bytes each, on the stream. Raises StreamUnavailable."""

    async def publish_packed(self, packed: Sequence[bytes], lane: Lane = ...) -> None: ...


class GateSetter(Protocol):
    """The core's gate."""

    def set_gate(self, gate: Gate) -> None: ...
