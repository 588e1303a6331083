"""The hot path: a batch of envelopes into Postgres in one transaction, one write and one answer.

A busy ingress hands over what the core has encoded already (core_rs/server/src/copy.rs). Rows as tuples are encoded
here, byte for byte alike: for batches that are stored in parts, and for everybody who has no core.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeAlias

from smtp_proxy.model.dsn import DsnRow
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.model.limits import Placement
from smtp_proxy.store.ids import new_id
from smtp_proxy.store.queries import QUERIES
from smtp_proxy.store.writer import Writer, query_message

# As `_core.Batch.envelopes()` hands it over: id, tenant and credential (16 bytes each), reverse-path, recipients,
# body, body type, SMTPUTF8, HELO, client address, TLS (0: none; else the number of its cipher suite, or True where that
# is not known), time of receipt (microseconds since 1970), DSN if asked for, lane.
CoreEnvelope: TypeAlias = tuple[
    bytes, bytes, bytes, str, list[str], bytes, int, bool, str, str, int, int, DsnRow | None, int
]


class Encoded(Protocol):
    """A batch for a Writer, in pieces, as `_core.Pieces` are."""

    @property
    def has_parts(self) -> bool:
        """Whether some content is long: in parts, written to a table of their own."""
        ...

    def __iter__(self) -> Iterator[bytes]: ...


# What `_core.Batch.encode` is: given deliveries.sweep_at in microseconds since 1970, all of a batch for a Writer.
Encoder: TypeAlias = Callable[[int], Encoded]

_NOBODY: Final = bytes(16)
# PostgreSQL's manual, "COPY", "Binary Format": signature, no flags, no header extension; and what ends it.
HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_COPY_DONE: Final = b"c\0\0\0\x04"
# Where a timestamptz begins: 2000-01-01, in microseconds since 1970.
EPOCH_US: Final = 946_684_800_000_000
# A piece, and a CopyData message, is full with what takes it so far, bytes.
_PIECE_BYTES: Final = 256 * 1024
# What is longer lies in parts of this size; why this size says core_rs/server/src/copy.rs.
PART_BYTES: Final = 8096
_INT2, _INT4, _INT8 = struct.Struct("!h"), struct.Struct("!i"), struct.Struct("!q")
_COPIES: Final = {
    (is_placed, has_parts): query_message(
        ";\n".join(
            QUERIES[name]
            for name, wanted in (("copy_accepted", True), ("copy_placed", is_placed), ("copy_parts", has_parts))
            if wanted
        )
    )
    for is_placed in (False, True)
    for has_parts in (False, True)
}
_REHEARSE: Final = query_message(
    f"BEGIN;\nSAVEPOINT written;\n{QUERIES['copy_accepted']};\nROLLBACK TO written;\nCOMMIT"
)


@dataclass(frozen=True, slots=True)
class Written:
    """One that is encoded here, or anywhere."""

    pieces: Iterable[bytes]
    has_parts: bool

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.pieces)


async def accept(writer: Writer, encoded: Encoded, messages: int) -> None:
    """Write an encoded batch; see Store.accept. Raises what Writer.copy raises."""
    has_parts = encoded.has_parts
    await writer.copy(_COPIES[False, has_parts], encoded, messages, parts=has_parts)


async def accept_placed(
    writer: Writer,
    batch: Sequence[CoreEnvelope],
    sweep_at: datetime,
    now: datetime,
    placements: Mapping[bytes, Placement],
) -> None:
    """Write a batch, and in the same transaction put some of it elsewhere than among what is ready."""
    ready = [row for row in batch if row[0] not in placements]
    placed = [row for row in batch if row[0] in placements]
    deliveries = (_ready(ready, sweep_at), _placed(placed, sweep_at, now, placements))
    encoded = _written(batch, *deliveries)
    await writer.copy(
        _COPIES[True, encoded.has_parts], encoded, len(batch), deliveries=len(deliveries), parts=encoded.has_parts
    )


async def rehearse(writer: Writer, now: datetime) -> None:
    """Write a message, take it back, commit: all that accepting needs of the server, and no message.

    The savepoint makes the transaction one that has written, so its commit goes to disk like any other.
    """
    row = (new_id(now).bytes, _NOBODY, _NOBODY, "", [""], b"", 0, False, "", "", False, 0, None, 0)
    try:
        await writer.copy(_REHEARSE, encode([row], microseconds(now)), 1)
    except BaseException:
        writer.close()  # Within the transaction that it was left in, nothing else would work.
        raise


def microseconds(moment: datetime) -> int:
    """Since 1970."""
    return int(moment.timestamp() * 1_000_000)


def encode(batch: Sequence[CoreEnvelope], sweep_at_us: int) -> Encoded:
    """What `_core.Batch.encode` gives for the same envelopes."""
    sweep_at = _INT8.pack(sweep_at_us - EPOCH_US)
    return _written(batch, (delivery for row in batch for delivery in _deliveries(row, sweep_at)))


def _written(batch: Sequence[CoreEnvelope], *deliveries: Iterable[bytes]) -> Written:
    long = [row for row in batch if len(row[5]) > PART_BYTES]
    tables = (map(_envelope, batch), *deliveries, *((_parts(long),) if long else ()))
    return Written(_pieces(tables), bool(long))


def _ready(batch: Sequence[CoreEnvelope], sweep_at: datetime) -> Iterator[bytes]:
    at = _timestamp(sweep_at)
    return (delivery for row in batch for delivery in _deliveries(row, at))


def _placed(
    batch: Sequence[CoreEnvelope], sweep_at: datetime, now: datetime, placements: Mapping[bytes, Placement]
) -> Iterator[bytes]:
    for row in batch:
        placement = placements[row[0]]
        state = DeliveryState.HELD if placement.held else DeliveryState.QUEUED
        due = now + timedelta(seconds=placement.delay_seconds)
        swept = _timestamp(max(sweep_at, due))
        yield from _deliveries(row, swept, _INT2.pack(state), _timestamp(due))


def _timestamp(moment: datetime) -> bytes:
    return _INT8.pack(microseconds(moment) - EPOCH_US)


def _parts(long: Iterable[CoreEnvelope]) -> Iterator[bytes]:
    for row in long:
        for number, at in enumerate(range(0, len(row[5]), PART_BYTES)):
            yield _row(row[0], _INT4.pack(number), row[5][at : at + PART_BYTES])


def _envelope(row: CoreEnvelope) -> bytes:
    (
        envelope_id,
        tenant,
        credential,
        reverse_path,
        recipients,
        body,
        body_type,
        smtputf8,
        helo,
        address,
        tls,
        received,
        dsn,
        _,
    ) = row
    ret, envid, _ = dsn or (None, None, [])
    return _row(
        envelope_id,
        tenant,
        credential,
        reverse_path.encode(),
        _INT4.pack(len(recipients)),
        _INT4.pack(len(body)),
        _INT2.pack(body_type),
        b"\1" if smtputf8 else b"\0",
        helo.encode(),
        address.encode(),
        b"\1" if tls else b"\0",
        _INT8.pack(received - EPOCH_US),
        _optional_int2(ret),
        _optional_text(envid),
        None if (suite := tls_suite(tls)) is None else _INT4.pack(suite),
        body if len(body) <= PART_BYTES else None,
    )


def tls_suite(tls: int) -> int | None:
    """The cipher suite in a row's TLS; None: none, or not known."""
    return tls if tls > 1 else None


def _deliveries(row: CoreEnvelope, sweep_at: bytes, *more: bytes) -> Iterator[bytes]:
    """One for each recipient; `more`: further columns, the same for all."""
    asked = row[12][2] if row[12] is not None else itertools.repeat((None, None), len(row[4]))
    lane = _INT2.pack(row[13])
    for number, (recipient, (notify, orcpt)) in enumerate(zip(row[4], asked, strict=True)):
        yield _row(
            row[0],
            _INT2.pack(number),
            recipient.encode(),
            sweep_at,
            _optional_int2(notify),
            _optional_text(orcpt),
            lane,
            *more,
        )


def _optional_int2(number: int | None) -> bytes | None:
    return None if number is None else _INT2.pack(number)


def _optional_text(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _row(*fields: bytes | None) -> bytes:
    parts = [_INT2.pack(len(fields))]
    for field in fields:
        parts += (_NULL,) if field is None else (_INT4.pack(len(field)), field)
    return b"".join(parts)


def _pieces(tables: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    """CopyData messages and their end, each table's after the other's, gathered into pieces."""
    piece: list[bytes] = []
    size = 0
    for message in itertools.chain.from_iterable(map(_table, tables)):
        piece.append(message)
        size += len(message)
        if size >= _PIECE_BYTES:
            whole = b"".join(piece)
            piece, size = [], 0
            yield whole
    if piece:
        yield b"".join(piece)


def _table(rows: Iterable[bytes]) -> Iterator[bytes]:
    """CopyData messages and their end."""
    current, size = [HEADER], len(HEADER)
    for row in rows:
        current.append(row)
        size += len(row)
        if size >= _PIECE_BYTES:
            message = _copy_data(current)
            current, size = [], 0
            yield message
    yield _copy_data([*current, _TRAILER])
    yield _COPY_DONE


def _copy_data(parts: list[bytes]) -> bytes:
    content = b"".join(parts)
    return b"d" + _INT4.pack(len(content) + _INT4.size) + content
