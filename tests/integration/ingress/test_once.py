"""Idempotent submission on the whole service: one message, whoever brings it how often at once."""

from __future__ import annotations

import asyncio

import pytest
from fix_ingress import House, eventually

from smtp_proxy.model.policy import TenantPolicy

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

BODY = b"X-Idempotency-Key: order-%d\r\nSubject: x\r\n\r\nhi\r\n"


async def opted_in(house: House) -> None:
    await house.store.set_tenant_policy("acme", TenantPolicy(idempotency_seconds=600))
    client = await house.client()

    async def is_heard() -> bool:
        return len({await client.submit(BODY % 0) for _ in range(2)}) == 1

    await eventually(is_heard)
    await client.hang_up()


async def test_many_at_once_bring_the_same(house: House) -> None:
    await opted_in(house)
    before = set(await house.stored())
    clients = [await house.client() for _ in range(8)]
    ids = await asyncio.gather(*(client.submit(BODY % 1) for client in clients))
    assert len(set(ids)) == 1
    assert set(await house.stored()) - before == set(ids)
    other = await clients[0].submit(BODY % 2)
    again = await clients[1].submit(BODY % 1)
    assert (other in ids, again in ids) == (False, True)
    assert set(await house.stored()) - before == {ids[0], other}
