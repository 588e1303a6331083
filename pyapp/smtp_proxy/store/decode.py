"""Reads what `accept.encode` and the core write, for the store in memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

from smtp_proxy.model.dsn import DsnRow
from smtp_proxy.store.accept import EPOCH_US, HEADER, CoreEnvelope

_INT2, _INT4, _INT8 = struct.Struct("!h"), struct.Struct("!i"), struct.Struct("!q")
_HEAD: Final = struct.Struct("!ci")


def decode(encoded: bytes) -> list[CoreEnvelope]:
    """The envelopes of an encoded batch. Raises ValueError."""
    envelopes, deliveries, *parts = (list(_rows(stream)) for stream in _streams(encoded))
    contents = {row[0]: [row[15]] if row[15] is not None else [] for row in envelopes}
    for envelope_id, _, content in (part for table in parts for part in table):
        contents[envelope_id].append(content)
    recipients: dict[bytes, list[str]] = {row[0]: [] for row in envelopes}
    asked: dict[bytes, list[tuple[int | None, str | None]]] = {row[0]: [] for row in envelopes}
    lanes: dict[bytes, int] = {}
    for row in deliveries:
        recipients[row[0]].append(_text(row[2]) or "")
        asked[row[0]].append((_int2(row[4]), _text(row[5])))
        lanes[row[0]] = _int2(row[6]) or 0
    return [
        (
            row[0],
            row[1],
            row[2],
            _text(row[3]) or "",
            recipients[row[0]],
            b"".join(contents[row[0]]),
            _int2(row[6]) or 0,
            row[7] == b"\1",
            _text(row[8]) or "",
            _text(row[9]) or "",
            int(row[10] == b"\1") if row[14] is None else _INT4.unpack(row[14])[0],
            _INT8.unpack(row[11])[0] + EPOCH_US,
            _dsn(_int2(row[12]), _text(row[13]), asked[row[0]]),
            lanes.get(row[0], 0),
        )
        for row in envelopes
    ]


def _dsn(ret: int | None, envid: str | None, asked: list[tuple[int | None, str | None]]) -> DsnRow | None:
    is_nothing = ret is None and envid is None and all(each == (None, None) for each in asked)
    return None if is_nothing else (ret, envid, asked)


def _int2(field: bytes | None) -> int | None:
    return None if field is None else int(_INT2.unpack(field)[0])


def _text(field: bytes | None) -> str | None:
    return None if field is None else field.decode()


def _streams(encoded: bytes) -> Iterator[bytes]:
    """One COPY stream per CopyDone, out of its CopyData messages."""
    parts: list[bytes] = []
    at = 0
    while at < len(encoded):
        kind, length = _HEAD.unpack_from(encoded, at)
        if kind == b"c":
            yield b"".join(parts)
            parts = []
        elif kind == b"d":
            parts.append(encoded[at + _HEAD.size : at + 1 + length])
        else:
            raise ValueError(f"a message {kind!r} has no place in a batch")
        at += 1 + length


def _rows(stream: bytes) -> Iterator[list[Any]]:
    """The fields of each row: bytes, or None where there is no value."""
    if not stream.startswith(HEADER):
        raise ValueError("this is no COPY stream")
    at = len(HEADER)
    while (count := _INT2.unpack_from(stream, at)[0]) >= 0:
        at += _INT2.size
        fields: list[bytes | None] = []
        for _ in range(count):
            (length,) = _INT4.unpack_from(stream, at)
            at += _INT4.size
            fields.append(stream[at : at + length] if length >= 0 else None)
            at += max(length, 0)
        yield fields
