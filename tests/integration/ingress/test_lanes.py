"""Which lane a message goes in: by its own word, its credential's, its tenant's; from the wire to the stream."""

from __future__ import annotations

from uuid import UUID

import pytest
from fix_ingress import BODY, USERNAME, House, eventually

from smtp_proxy.model.lane import Lane
from smtp_proxy.model.policy import TenantPolicy

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


async def lane_of(house: House, envelope_id: UUID) -> Lane:
    return (await house.store.message(envelope_id)).summary.lane


async def test_a_message_asks_for_its_lane_and_the_field_is_taken_out(house: House) -> None:
    client = await house.client()
    plain = await client.submit(BODY)
    bulk = await client.submit(b"X-Priority-Lane: bulk\r\n" + BODY)
    list_mail = await client.submit(b"Precedence: list\r\n" + BODY)
    assert [await lane_of(house, i) for i in (plain, bulk, list_mail)] == [Lane.TRANSACTIONAL, Lane.BULK, Lane.BULK]
    assert await house.body(bulk) == BODY
    assert await house.body(list_mail) == b"Precedence: list\r\n" + BODY


async def test_the_lanes_of_tenants_and_credentials_are_known_at_once(house: House) -> None:
    client = await house.client()
    (tenant,) = [t for t in await house.store.list_tenants() if t.id == house.credential.tenant_id]
    await house.store.set_tenant_policy(tenant.name, TenantPolicy(lane=Lane.BULK))

    async def goes(lane: Lane) -> bool:
        return await lane_of(house, await client.submit(BODY)) is lane

    await eventually(lambda: goes(Lane.BULK))
    urgent = await client.submit(b"X-Priority-Lane: transactional\r\n" + BODY)
    assert await lane_of(house, urgent) is Lane.TRANSACTIONAL
    await house.store.set_credential_lane(USERNAME, Lane.TRANSACTIONAL)
    await eventually(lambda: goes(Lane.TRANSACTIONAL))
    await house.store.set_credential_lane(USERNAME, None)
    await eventually(lambda: goes(Lane.BULK))
