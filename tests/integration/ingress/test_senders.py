"""As whom a login may send: what the database says, from the next login on."""

from __future__ import annotations

import pytest
from fix_ingress import USERNAME, Client, House, eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


async def answer(client: Client, reverse_path: str) -> str:
    """What MAIL hears; nothing is left of it."""
    reply = await client.say(f"MAIL FROM:<{reverse_path}>")
    await client.command(250, "RSET")
    return reply[:9]


async def test_a_change_holds_from_the_next_login_on(house: House) -> None:
    early = await house.client()
    assert await answer(early, "anyone@example.org") == "250 2.1.0"
    await house.store.set_allowed_senders(USERNAME, ["example.com", "<>"])

    async def is_refused() -> bool:
        client = await house.client()
        reply = await answer(client, "anyone@example.org")
        await client.hang_up()
        return reply == "550 5.7.1"

    await eventually(is_refused, 5)
    assert await answer(early, "anyone@example.org") == "250 2.1.0", "a session keeps the rights it began with"
    late = await house.client()
    assert [await answer(late, path) for path in ("A@Example.com", '"a"@example.com', "")] == ["250 2.1.0"] * 3
    assert await answer(late, '"a@example.com"@example.org') == "550 5.7.1"
    envelope_id = await late.submit(reverse_path="a@example.com")
    assert await house.stored() == [envelope_id]


async def test_rights_that_cannot_be_read_let_nobody_in(house: House) -> None:
    """Whoever wrote into the table by hand: temporary, since it is ours to mend."""
    await house.store.set_allowed_senders(USERNAME, ["not a pattern"])
    client = await house.client(log_in=False)
    assert (await client.log_in()).startswith("454 4.7.0")
    assert (await client.say("MAIL FROM:<a@example.com>")).startswith("530")
