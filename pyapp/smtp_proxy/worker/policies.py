"""What tenants want of mail that is not delivered: read every few seconds, and not for every message.

Only mail that was not delivered, or whose sender asked to be told, waits for it to have been read once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from smtp_proxy.errors import StoreError
from smtp_proxy.model.policy import TenantPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from smtp_proxy.worker.ports import MailStore

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 5.0
_STORE_AWAY_SECONDS: Final = 1.0
_AS_THE_REST: Final = TenantPolicy()


class Policies:
    """Holds what was read last."""

    def __init__(self, store: MailStore) -> None:
        self._store = store
        self._known: Mapping[UUID, TenantPolicy] = {}
        self._read = asyncio.Event()

    async def of(self, tenant_id: UUID) -> TenantPolicy:
        """What this tenant wants."""
        await self._read.wait()
        return self._known.get(tenant_id, _AS_THE_REST)

    async def run(self) -> None:
        """Read again and again; until cancelled."""
        while True:
            try:
                self._known = await self._store.tenant_policies()
            except StoreError as error:
                log.warning("policies of tenants are not known anew: %s", error, extra={"action": "policies_unread"})
                await asyncio.sleep(_STORE_AWAY_SECONDS)
            else:
                self._read.set()
                await asyncio.sleep(_AGAIN_SECONDS)
