"""Reads what `accept.encode` and the core write, for the store in memory. Postgres does the same for the real one."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from smtp_proxy.store.accept import EPOCH_US, HEADER, CoreEnvelope

_INT2, _INT4, _INT8 = struct.Struct("!h"), struct.Struct("!i"), struct.Struct("!q")
_HEAD: Final = struct.Struct("!ci")


def decode(encoded: bytes) -> list[CoreEnvelope]:
    """The envelopes of an encoded batch. Raises ValueError."""
    envelopes, bodies, deliveries = (list(_rows(stream)) for stream in _streams(encoded))
    contents = {row[0]: row[1] for row in bodies}
    recipients: dict[bytes, list[str]] = {row[0]: [] for row in envelopes}
    for row in deliveries:
        recipients[row[0]].append(row[2].decode())
    return [
        (
            row[0],
            row[1],
            row[2],
            row[3].decode(),
            recipients[row[0]],
            contents[row[0]],
            _INT2.unpack(row[6])[0],
            row[7] == b"\1",
            row[8].decode(),
            row[9].decode(),
            row[10] == b"\1",
            _INT8.unpack(row[11])[0] + EPOCH_US,
        )
        for row in envelopes
    ]


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


def _rows(stream: bytes) -> Iterator[list[bytes]]:
    if not stream.startswith(HEADER):
        raise ValueError("this is no COPY stream")
    at = len(HEADER)
    while (count := _INT2.unpack_from(stream, at)[0]) >= 0:
        at += _INT2.size
        fields = []
        for _ in range(count):
            (length,) = _INT4.unpack_from(stream, at)
            at += _INT4.size
            fields.append(stream[at : at + length])
            at += length
        yield fields
