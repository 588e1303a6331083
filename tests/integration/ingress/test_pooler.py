"""The whole service behind PgBouncer in transaction mode: mail, logins, limits, and what the database tells."""

from __future__ import annotations

import pytest
from fix_ingress import PASSWORD, USERNAME, MakeHouse, eventually
from fix_pgbouncer import PgBouncer, pgbouncer

__all__ = ["pgbouncer"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


async def test_mail_is_taken_and_a_change_is_heard(make_house: MakeHouse, pgbouncer: PgBouncer) -> None:
    house = await make_house(**pgbouncer.overrides())
    await house.start()
    client = await house.client()
    sent = [await client.submit() for _ in range(20)]
    assert len(set(sent)) == 20 == len(await house.stored())

    await house.store.disable_credential(USERNAME)

    async def is_refused() -> bool:
        other = await house.client(log_in=False)
        return (await other.log_in(USERNAME, PASSWORD)).startswith("535")

    await eventually(is_refused)
