"""The names in Redis, and which shard an envelope belongs to.

One shard (the default) is the key `email-processing`. Several are `email-processing:{0}`, `email-processing:{1}`, …:
the braces make each number a Redis Cluster hash tag, so the shards spread over slots, and nothing here ever names
two of them in one command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

GROUP = "workers"
FIELD = b"id"


def stream_keys(name: str, shards: int) -> tuple[str, ...]:
    """Name the keys of all shards, in order of their number."""
    if shards == 1:
        return (name,)
    return tuple(f"{name}:{{{number}}}" for number in range(shards))


def shard_of(envelope_id: UUID, shards: int) -> int:
    """Find the shard of an envelope. The last bits of a UUIDv7 are random (RFC 9562 5.7), so all fill evenly."""
    return envelope_id.int % shards


def accepted_ms(envelope_id: UUID) -> int:
    """Milliseconds since 1970 at which the envelope was accepted: the head of its UUIDv7 (RFC 9562 5.7)."""
    return envelope_id.int >> 80


def by_shard(packed: Sequence[bytes], shards: int) -> dict[int, Sequence[bytes]]:
    """Group ids by `shard_of`; each is the 16 bytes that travel in the stream."""
    if shards == 1:
        return {0: packed} if packed else {}
    groups: dict[int, list[bytes]] = {}
    for each in packed:
        groups.setdefault(int.from_bytes(each) % shards, []).append(each)
    return dict(groups)
