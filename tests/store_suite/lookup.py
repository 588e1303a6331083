"""Looking messages up, and signs of life."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from smtp_proxy.errors import NotFound
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.envelope import DeliveryState
from store_suite.rows import LEASE, TENANT, Stores, attempt_for, core_envelope


class LookupSuite:
    async def test_messages_are_listed_newest_first_page_by_page(self, stores: Stores) -> None:
        other = uuid4()
        rows = [core_envelope([f"{n}@x.example"]) for n in range(4)] + [core_envelope(tenant=other.bytes)]
        ids = sorted(await stores.accepted(*rows), reverse=True)
        assert [m.id for m in await stores.store.list_messages()] == ids
        assert [m.id for m in await stores.store.list_messages(limit=2, before=ids[1])] == ids[2:4]
        (found,) = await stores.store.list_messages(tenant_id=other)
        assert found.id == UUID(bytes=rows[-1][0])
        assert (found.size_bytes, found.reverse_path) == (len(rows[-1][5]), "me@example.com")

    @pytest.mark.parametrize("state", [None, DeliveryState.QUEUED, DeliveryState.DELIVERED])
    async def test_page_by_page_to_the_end(self, stores: Stores, state: DeliveryState | None) -> None:
        ids = sorted(await stores.accepted(*(core_envelope() for _ in range(4))), reverse=True)
        if state is DeliveryState.DELIVERED:
            worker = uuid4()
            jobs = await stores.store.claim(ids, worker, LEASE)
            await stores.store.record([attempt_for(job, worker, Outcome.DELIVERED) for job in jobs])
        pages, before = [], None
        for _ in range(2):
            found, before = await stores.store.page_of_messages(
                tenant_id=TENANT, state=state, limit=2, before=before, patience_seconds=60
            )
            pages.append([message.id for message in found])
        assert pages == [ids[:2], ids[2:]]
        assert before is None

    async def test_messages_are_found_by_state(self, stores: Stores) -> None:
        ids = await stores.accepted(core_envelope(["a@x.example", "b@x.example"]), core_envelope())
        worker = uuid4()
        (job,) = await stores.store.claim(ids[:1], worker, LEASE)
        await stores.store.record([attempt_for(job, worker, Outcome.DELIVERED)])
        (found,) = await stores.store.list_messages(state=DeliveryState.DELIVERED)
        assert found.id == ids[0]
        assert found.recipients == ("a@x.example", "b@x.example")
        assert found.states == (DeliveryState.DELIVERED, DeliveryState.SENDING)
        assert [m.id for m in await stores.store.list_messages(state=DeliveryState.QUEUED)] == ids[1:]
        assert await stores.store.list_messages(state=DeliveryState.REFUSED) == []

    async def test_a_message_that_is_not_there(self, stores: Stores) -> None:
        with pytest.raises(NotFound):
            await stores.store.message(uuid4())

    async def test_signs_of_life(self, stores: Stores) -> None:
        await stores.store.ping()
        await stores.store.probe_commit()
        assert (await stores.store.list_messages(), await stores.store.depth()) == ([], 0)
        await stores.store.ensure_partitions(datetime.now(UTC), 3)
        assert await stores.store.ensure_partitions(datetime.now(UTC), 3) == []
