"""UUIDv7 (RFC 9562 5.7): ids that sort by time, and so say in which partition their row lives."""

from __future__ import annotations

import os
from datetime import datetime
from uuid import UUID


def first_id(moment: datetime) -> UUID:
    """The lowest id of this millisecond: a bound between partitions."""
    milliseconds = int(moment.timestamp() * 1000)
    return UUID(bytes=milliseconds.to_bytes(6, "big") + bytes(10))


def new_id(moment: datetime) -> UUID:
    """A fresh UUIDv7."""
    milliseconds = int(moment.timestamp() * 1000)
    random = bytearray(os.urandom(10))
    random[0] = 0x70 | (random[0] & 0x0F)  # version 7
    random[2] = 0x80 | (random[2] & 0x3F)  # variant
    return UUID(bytes=milliseconds.to_bytes(6, "big") + bytes(random))
