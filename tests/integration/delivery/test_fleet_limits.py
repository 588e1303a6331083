"""Limits over the fleet on a real Valkey: two workers' transports, one slow server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fix_valkey import ValkeyServer
from mail import job
from scripted_server import ScriptedServer

from smtp_proxy.clock import SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.delivery.governor import Governor
from smtp_proxy.delivery.leg import Routes
from smtp_proxy.delivery.route import Route
from smtp_proxy.delivery.smtp import SmtpTransport
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.stream.places import Places

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

LEASE_SECONDS = 0.6


@pytest.fixture
async def slow() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(delay_seconds=3.0).running() as server:
        yield server


async def test_a_slow_delivery_keeps_its_place_for_longer_than_the_lease(
    valkey: ValkeyServer, slow: ScriptedServer
) -> None:
    settings = Settings.load({"redis_url": valkey.url}, {})
    route = Route("127.0.0.1", slow.port, "none", "proxy.example", fleet_connections=1)
    places = [Places(settings), Places(settings)]
    one, other = (
        SmtpTransport(Routes(route), None, Governor(SystemClock(), places=p, place_lease_seconds=LEASE_SECONDS))
        for p in places
    )
    delivery = asyncio.create_task(one.deliver(job()))
    await asyncio.sleep(2.5 * LEASE_SECONDS)
    (turned_away,) = await other.deliver(job())
    was_slow, connections = not delivery.done(), slow.connections
    (first,) = await delivery
    (taken,) = await other.deliver(job())
    for part in (one, other, *places):  # before anything may fail: the server waits for its connections
        await part.close()
    assert was_slow, "the server was slow enough"
    assert (turned_away.outcome, turned_away.postponed_seconds > 0) == (Outcome.DEFERRED, True)
    assert connections == 1
    assert (first.outcome, taken.outcome) == (Outcome.DELIVERED, Outcome.DELIVERED)
