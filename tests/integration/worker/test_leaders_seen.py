"""What the ledger's harness kills as "the sweeper's leader" leads the sweep, and nothing else."""

from __future__ import annotations

import pytest
from fix_postgres import PostgresServer
from ledger_harness.world import LEADER_PORTS

from smtp_proxy.config import Settings
from smtp_proxy.store import Store
from smtp_proxy.worker import retention, sweeper, webhooks

pytestmark = pytest.mark.integration


async def test_who_leads_the_sweep_is_told_from_other_leaders(db_settings: Settings, postgres: PostgresServer) -> None:
    async def ports(name: str) -> list[int]:
        rows = await postgres.sql(LEADER_PORTS, name, database=db_settings.db_name)
        return [row["client_port"] for row in rows]

    store = await Store.connect(db_settings, purpose="test")
    try:
        found = {}
        for name in (webhooks.LEADER_NAME, retention.LEADER_NAME, sweeper.LEADER_NAME):
            assert await ports(sweeper.LEADER_NAME) == []
            async with store.leader(name) as leader:
                assert await leader.try_acquire()
                found[name] = await ports(name)
                if name == sweeper.LEADER_NAME:
                    async with store.leader(webhooks.LEADER_NAME) as other:
                        assert await other.try_acquire()
                        assert await ports(name) == found[name]
        assert [len(each) for each in found.values()] == [1, 1, 1]
    finally:
        await store.close()
