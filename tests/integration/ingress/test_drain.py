"""Leaving: close, drain, leave. Idle sessions hear 421, a message that has begun is finished.

Nothing is lost (REQ-INFRA-SCALE-002).
"""

from __future__ import annotations

import asyncio

import pytest
from fix_ingress import Address, Client, House, Listener, MakeHouse, eventually, queued_id, stuffed
from fix_postgres import PostgresServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


async def is_refused(address: Address) -> bool:
    """Does nobody listen there any more?"""
    try:
        client = await Client.connect(address)
    except ConnectionRefusedError:
        return True
    await client.vanish()
    return False


async def is_sent_away(client: Client) -> None:
    assert (await client.reply()).startswith("421 4.3.2")
    assert await client.is_closed()


@pytest.mark.parametrize("listener", ["starttls", "tls"])
async def test_idle_sessions_leave_and_a_message_is_finished(house: House, listener: Listener) -> None:
    idle = [await house.client(listener), await house.client(listener, log_in=False), await house.client(listener)]
    await idle[2].command(250, "MAIL FROM:<a@sender.example>")  # Nothing is lost before DATA.
    one, other = await house.client(listener), await house.client(listener)
    for client in (one, other):
        await client.begin()
        client.send(b"Subject: half\r\n\r\n")
    house.terminate()
    for client in idle:
        await is_sent_away(client)
    for address in house.addresses.values():
        await eventually(lambda address=address: is_refused(address))

    finished = []
    for client in (one, other):
        client.send(b"and whole\r\n.\r\n")
        finished.append(queued_id(await client.expect(250)))
        await is_sent_away(client)

    await house.stopped()
    assert await house.stored() == finished
    assert await house.body(finished[0]) == b"Subject: half\r\n\r\nand whole\r\n"
    assert await house.is_queued(*finished), "the last ids reached the stream before the service left"


async def test_the_next_message_is_not_begun(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "smtp_proxy.ingress.pressure")
    client, idle = await house.client(), await house.client()
    await client.begin()
    house.terminate()
    await is_sent_away(idle)
    client.send(stuffed(b"x\r\n") + b"MAIL FROM:<a@sender.example>\r\n")
    await client.expect(250)
    await is_sent_away(client)
    assert "the gate is draining" in caplog.messages
    await house.stopped()
    assert len(await house.stored()) == 1


async def test_nobody_is_there(house: House) -> None:
    house.terminate()
    await asyncio.wait_for(house.stopped(), 3)
    assert await is_refused(house.addresses["tls"])


async def test_whoever_does_not_finish_is_left_behind(make_house: MakeHouse, caplog: pytest.LogCaptureFixture) -> None:
    house = await make_house(shutdown_timeout_seconds=0.3)
    await house.start()
    stuck = await house.client()
    await stuck.begin()
    stuck.send(b"Subject: never finished\r\n")
    house.terminate()
    await house.stopped()
    assert await stuck.is_closed()
    assert await house.stored() == []
    assert "leaving behind the sessions" in caplog.text


async def test_a_second_signal_leaves_at_once(house: House) -> None:
    stuck, idle = await house.client(), await house.client()
    await stuck.begin()
    house.terminate()
    await is_sent_away(idle)
    house.terminate()
    await asyncio.wait_for(house.stopped(), 3)
    assert await stuck.is_closed()


async def test_mail_is_taken_while_the_load_balancer_notices(make_house: MakeHouse) -> None:
    house = await make_house(shutdown_delay_seconds=30.0)
    await house.start()
    house.terminate()
    envelope_id = await (await house.client()).submit()
    house.terminate()
    await house.stopped()
    assert await house.stored() == [envelope_id]


async def test_leaving_while_postgres_is_away(house: House, postgres: PostgresServer) -> None:
    """What cannot be stored is not acknowledged, and does not keep the service from leaving."""
    client = await house.client()
    await client.begin()
    await asyncio.to_thread(postgres.kill)
    house.terminate()
    client.send(stuffed(b"x\r\n"))
    assert (await client.reply()).startswith("451")
    await is_sent_away(client)
    await house.stopped()
    await asyncio.to_thread(postgres.start)
    assert await house.stored() == []


async def test_a_new_service_takes_over_the_same_ports(house: House) -> None:
    await (await house.client()).submit()
    ports = {f"smtp_{name}_port": port for name, (_, port) in house.addresses.items()}
    house.terminate()
    await house.stopped()
    house.settings = house.settings.model_copy(update=ports)
    await house.start()
    await (await house.client()).submit()
    assert len(await house.stored()) == 2
