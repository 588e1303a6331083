"""Connections that wait to be used again: bounded over all next hops, not only at each."""

from __future__ import annotations

import asyncio

import pytest
from scripted_server import ScriptedServer

from smtp_proxy.delivery.pool import Idle, Pool
from smtp_proxy.delivery.route import Route

pytestmark = pytest.mark.integration


async def test_the_longest_idle_of_all_gives_way() -> None:
    """A worker that delivers by MX once kept one for each domain, as many as there were."""
    server = ScriptedServer()
    async with server.running():
        idle = Idle(2)
        pools = [Pool(Route("127.0.0.1", server.port, "none", "proxy.example"), idle) for _ in range(4)]
        for pool in pools:
            connection, _ = await pool.acquire()
            pool.release(connection)
        assert len(idle) == 2
        assert [pool.open_connections for pool in pools] == [0, 0, 1, 1]
        async with asyncio.timeout(5):
            while server.verbs["QUIT"] < 2:
                await asyncio.sleep(0.01)
        _, reused = await pools[2].acquire()
        assert (reused, len(idle)) == (True, 1), "what is in use is not idle"
        _, reused = await pools[0].acquire()
        assert not reused
        await asyncio.gather(*(pool.close() for pool in pools))
        assert len(idle) == 0


async def test_one_that_the_server_closed_counts_no_longer() -> None:
    server = ScriptedServer()
    async with server.running():
        idle = Idle(2)
        pool = Pool(Route("127.0.0.1", server.port, "none", "proxy.example"), idle)
        connection, _ = await pool.acquire()
        pool.release(connection)
        server.hang_up_all()
        async with asyncio.timeout(5):
            while len(idle):
                await asyncio.sleep(0.01)
        assert pool.open_connections == 0
