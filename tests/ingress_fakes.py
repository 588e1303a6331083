"""What ingress asks of the rooms around it, played by hand: the core, the store, the stream, and time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar
from uuid import UUID

from smtp_proxy.core import (
    BODY,
    DEFERRED,
    ID,
    LANE,
    OVER_RATE,
    QUEUED,
    RECIPIENTS,
    TENANT_ID,
    EnvelopeRow,
    Gate,
    Keep,
    LoginVerdict,
    Outline,
)
from smtp_proxy.errors import StoreError, StoreUnavailable, StreamUnavailable
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.limits import Placement
from smtp_proxy.store.accept import Encoded, Encoder, encode
from smtp_proxy.store.decode import decode
from smtp_proxy.stream.limits import RateRequest
from smtp_proxy.tenants.logins import Verdict

_T = TypeVar("_T")


class Arriving(Generic[_T]):
    """Where batches or logins come from: the core, as far as its two waiting calls go."""

    def __init__(self, *things: _T) -> None:
        self._things: asyncio.Queue[_T] = asyncio.Queue()
        self.new: list[asyncio.Future[_T]] = []  # who asked for newcomers
        for thing in things:
            self.arrive(thing)

    def arrive(self, thing: _T) -> None:
        self._things.put_nowait(thing)

    async def next_batch(self) -> _T:
        return await self._things.get()

    def newcomers(self) -> asyncio.Future[_T]:
        self.new.append(asyncio.get_running_loop().create_future())
        return self.new[-1]

    async def next_logins(self) -> _T:
        return await self._things.get()


class FakeBatch:
    """A batch of the core: what each client was told. As there, a second answer is none."""

    def __init__(
        self,
        rows: Sequence[EnvelopeRow],
        log: list[str] | None = None,
        codes: dict[bytes, int] | None = None,
        names: dict[bytes, bytes] | None = None,
    ) -> None:
        self.rows = list(rows)
        self.beside_quiet = False
        self.names: dict[bytes, bytes] = {} if names is None else names  # as what each is queued
        self._here = self.rows  # what was not split off
        self._codes = {} if codes is None else codes
        self._log = [] if log is None else log

    @property
    def told(self) -> list[int | None] | None:
        """In the order of `rows`, whichever part of the batch told it; None: nobody has heard anything."""
        return [self._codes.get(row[ID]) for row in self.rows] if self._codes else None

    @property
    def size_bytes(self) -> int:
        return sum(len(row[5]) for row in self._here)

    def encode(self, sweep_at_us: int) -> Encoded:
        return encode(self._here, sweep_at_us)

    def tenants(self) -> list[bytes]:
        return list(dict.fromkeys(row[TENANT_ID] for row in self._here))

    def ids(self) -> list[bytes]:
        return [row[ID] for row in self._here]

    def bulk_ids(self) -> list[bytes]:
        return [row[ID] for row in self._here if row[LANE] == Lane.BULK]

    def outlines(self) -> list[Outline]:
        return [(row[ID], row[TENANT_ID], len(row[RECIPIENTS]), len(row[BODY])) for row in self._here]

    def split(self, ids: Sequence[bytes]) -> FakeBatch:
        apart = FakeBatch([row for row in self._here if row[ID] in ids], self._log, self._codes, self.names)
        self._here = [row for row in self._here if row[ID] not in ids]
        return apart

    def envelopes(self) -> list[EnvelopeRow]:
        return self._here

    def commit(self) -> None:
        self._tell([250] * len(self._here))

    def defer(self) -> None:
        self._tell([451] * len(self._here))

    def __len__(self) -> int:
        return sum(row[ID] not in self._codes for row in self._here)

    def rename(self, ids: Sequence[bytes]) -> None:
        assert len(ids) == len(self._here)
        self.names.update(zip(self.ids(), ids, strict=True))

    def answer(self, answers: Sequence[int]) -> None:
        assert len(answers) == len(self._here)
        self._tell([{DEFERRED: 451, QUEUED: 250, OVER_RATE: 450}[each] for each in answers])

    def _tell(self, codes: list[int]) -> None:
        if len(self):
            self._log.append("answered")
        for row, code in zip(self._here, codes, strict=True):
            self._codes.setdefault(row[ID], code)


class FakeLogins:
    """Logins of the core and what they were answered."""

    def __init__(self, *requests: tuple[str, str]) -> None:
        self._requests = [(username, password, "192.0.2.7") for username, password in requests]
        self.verdicts: list[LoginVerdict] | None = None
        self.kept: list[Keep | None] = []
        self.answered = asyncio.Event()

    def requests(self) -> list[tuple[str, str, str]]:
        return self._requests

    def answer(self, verdicts: Sequence[LoginVerdict], keep: Sequence[Keep | None] = ()) -> None:
        assert len(verdicts) == len(self._requests)
        if self.verdicts is None:
            self.verdicts, self.kept = list(verdicts), list(keep)
            self.answered.set()


class FakeStore:
    """Takes mail in. What it is told to refuse makes the whole transaction fail, as in Postgres."""

    def __init__(self, log: list[str] | None = None) -> None:
        self.stored: list[bytes] = []
        self.refused: set[bytes] = set()
        self.error: Exception | None = None
        self.error_from_call = 0
        self.calls: list[int] = []
        self.encoded: list[list[bytes]] = []  # of them, what came as the core encodes it
        self.placements: dict[bytes, Placement] = {}
        self.sweep_after_seconds: set[float] = set()
        self.pings = 0
        self.open = asyncio.Event()
        self.open.set()
        self._log = [] if log is None else log

    async def accept(
        self,
        batch: Sequence[EnvelopeRow],
        *,
        sweep_after_seconds: float,
        placements: Mapping[bytes, Placement] | None = None,
    ) -> None:
        self.placements.update(placements or {})
        self.calls.append(len(batch))
        self.sweep_after_seconds.add(sweep_after_seconds)
        await self.open.wait()
        if self.error is not None and len(self.calls) > self.error_from_call:
            raise self.error
        if self.refused.intersection(row[ID] for row in batch):
            raise StoreError("storing accepted mail: a value is out of range")
        self.stored += [row[ID] for row in batch]
        self._log.append("stored")

    async def accept_encoded(self, encoder: Encoder, messages: int, *, sweep_after_seconds: float) -> None:
        rows = decode(b"".join(encoder(0)))
        assert len(rows) == messages
        self.encoded.append([row[ID] for row in rows])
        await self.accept(rows, sweep_after_seconds=sweep_after_seconds)

    async def ping(self) -> None:
        self.pings += 1
        if self.error is not None:
            raise self.error

    async def probe_commit(self) -> None:
        if self.error is not None:
            raise self.error


class FakePublisher:
    """A stream that can be held up, or be away."""

    def __init__(self, log: list[str] | None = None) -> None:
        self.calls: list[list[UUID]] = []
        self.lanes: list[Lane] = []  # of each call
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self._log = [] if log is None else log

    async def publish_packed(self, packed: Sequence[bytes], lane: Lane = Lane.TRANSACTIONAL) -> None:
        self.lanes.append(lane)
        self.calls.append([UUID(bytes=each) for each in packed])
        await self.open.wait()
        if self.error is not None:
            raise self.error
        self._log.append("published")


class FakeChecker:
    """Knows some logins at once; for the others `check` waits until it is let go."""

    def __init__(self) -> None:
        self.known: dict[str, Verdict] = {}
        self.found: dict[str, Verdict | Exception] = {}
        self.checked: list[str] = []
        self.kept: dict[str, Keep] = {}
        self.held: dict[str, asyncio.Event] = {}

    def cached(self, username: str, password: str, address: str = "") -> Verdict:
        return self.known.get(username)

    def keep(self, username: str, password: str) -> Keep | None:
        return self.kept.get(username)

    async def check(self, username: str, password: str, address: str = "") -> Verdict:
        if username in self.known:
            return self.known[username]
        self.checked.append(username)
        if username in self.held:
            await self.held[username].wait()
        found = self.found.get(username, False)
        if isinstance(found, Exception):
            raise found
        return found


class FakeGate:
    """The core's gate: every word it was told."""

    def __init__(self) -> None:
        self.told: list[Gate] = []

    def set_gate(self, gate: Gate) -> None:
        self.told.append(gate)


class FakeDepth:
    """A depth that is set, or an error."""

    def __init__(self, depth: int | Exception = 0) -> None:
        self.answer = depth
        self.asked = 0

    async def depth(self) -> int:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class FakeShared:
    """Redis, as far as tenants' limits go: away, unless it is told what to answer."""

    def __init__(self) -> None:
        self.delays: list[list[float]] | None = None
        self.asked: list[Sequence[RateRequest]] = []
        self.elsewhere: dict[UUID, int] | None = None
        self.said: list[dict[UUID, int]] = []

    async def ping(self) -> None:
        if self.delays is None:
            raise StreamUnavailable

    async def reserve(self, requests: Sequence[RateRequest], timeout_seconds: float) -> list[list[float]]:
        self.asked.append(requests)
        await self.ping()
        assert self.delays is not None
        return self.delays

    async def exchange_sessions(self, me: str, counts: Mapping[UUID, int]) -> dict[UUID, int]:
        self.said.append(dict(counts))
        if self.elsewhere is None:
            raise StreamUnavailable
        return self.elsewhere


class FakeSleep:
    """Sleeps no time at all, and remembers for how long; may do something meanwhile."""

    def __init__(self, meanwhile: Callable[[int], None] = lambda _: None) -> None:
        self.slept: list[float] = []
        self._meanwhile = meanwhile

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._meanwhile(len(self.slept))
        await asyncio.sleep(0)


async def settle(turns: int = 10) -> None:
    """Let every task that can go on do so."""
    for _ in range(turns):
        await asyncio.sleep(0)


def unavailable() -> StoreUnavailable:
    return StoreUnavailable("storing accepted mail: the database can not be reached")
