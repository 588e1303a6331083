"""The names in Redis, and which shard an envelope belongs to.

One shard (the default) is the key `email-processing`. Several are `email-processing:{0}`, `email-processing:{1}`, …:
the braces make each number a Redis Cluster hash tag, so the shards spread over slots, and nothing here ever names
two of them in one command.

Bulk mail has a key of its own beside each: `{email-processing}:bulk`, or `email-processing:bulk:{0}`, …. Its hash tag
is what the slot of the other key is made of, so the two lanes of a shard lie in one slot, and one command reads both.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from smtp_proxy.model.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

GROUP = "workers"
FIELD = b"id"
# What a Redis Cluster takes the slot from, instead of the whole key.
_HASH_TAG = re.compile(r"\{[^}]+\}")


def stream_keys(name: str, shards: int) -> tuple[str, ...]:
    """Name the keys of all shards, in order of their number."""
    if shards == 1:
        return (name,)
    return tuple(f"{name}:{{{number}}}" for number in range(shards))


def bulk_keys(name: str, shards: int) -> tuple[str, ...]:
    """Name the keys of all shards' bulk mail, in order of their number; each in the slot of its shard's other key."""
    if shards == 1:
        return (f"{name}:bulk" if _HASH_TAG.search(name) else f"{{{name}}}:bulk",)
    return tuple(f"{name}:bulk:{{{number}}}" for number in range(shards))


def lane_keys(name: str, shards: int) -> dict[Lane, tuple[str, ...]]:
    """The keys of all shards, of each lane."""
    return {Lane.TRANSACTIONAL: stream_keys(name, shards), Lane.BULK: bulk_keys(name, shards)}


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
