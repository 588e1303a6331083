"""How much mail of each tenant may be held, so that a tenant in mode `hold` does not fill the disk.

What is held is counted now and then by somebody who asks the store (`ingress.held`); what this process holds since is
added here. So one process by itself stays below the limit, but for what was being stored during a count; over a fleet
it may be passed by what the others hold between two counts. Before the first count nobody knows, and nothing is held.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtp_proxy.model.limits import Held

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOTHING = Held()


class HeldRoom:
    """What may still be held. A limit 0: any number."""

    def __init__(self, most_messages: int = 0, most_bytes: int = 0) -> None:
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._counted: Mapping[bytes, Held] | None = None  # None: not yet
        self._before: dict[bytes, Held] = {}  # added before the count that is under way, and so in it
        self._added: dict[bytes, Held] = {}

    def begin_count(self) -> None:
        """From now on what is added will not be in the count."""
        self._before = {tenant_id: self._own(tenant_id) for tenant_id in self._before | self._added}
        self._added = {}

    def end_count(self, counted: Mapping[bytes, Held]) -> None:
        """So much is held, by tenant. A count that failed is not ended; the next one begins where it did."""
        self._counted, self._before = counted, {}

    def take(self, tenant_id: bytes, size_bytes: int) -> bool:
        """Whether one more message may be held; then it counts."""
        if self._counted is None and (self._most_messages or self._most_bytes):
            return False
        counted, own = (self._counted or {}).get(tenant_id, _NOTHING), self._own(tenant_id)
        if self._most_messages and counted.messages + own.messages >= self._most_messages:
            return False
        if self._most_bytes and counted.size_bytes + own.size_bytes + size_bytes > self._most_bytes:
            return False
        added = self._added.get(tenant_id, _NOTHING)
        self._added[tenant_id] = Held(added.messages + 1, added.size_bytes + size_bytes)
        return True

    def _own(self, tenant_id: bytes) -> Held:
        before, added = self._before.get(tenant_id, _NOTHING), self._added.get(tenant_id, _NOTHING)
        return Held(before.messages + added.messages, before.size_bytes + added.size_bytes)
