"""Idempotent submission: by what a message is known again, and what its client hears."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
from ingress_fakes import FakeBatch, FakePublisher, settle
from store_suite import core_envelope

from smtp_proxy.core import ID
from smtp_proxy.ingress.announce import Announcer
from smtp_proxy.ingress.commit import Committer
from smtp_proxy.ingress.once import Once, digest_of
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.policy import TenantPolicy
from smtp_proxy.store import MemoryStore


def row(header: bytes, *recipients: str, **changes: object) -> tuple:
    return core_envelope(recipients or ("a@x.example",), header + b"\r\nMessage-ID: <in@body>\r\n", **changes)


def test_by_key_by_message_id_or_by_nothing() -> None:
    key = digest_of(row(b"X-Idempotency-Key: 7\r\nMessage-ID: <a@b>\r\n"))
    assert key == digest_of(row(b"Message-ID: <other>\r\nx-idempotency-KEY:\r\n 7 \r\n", "z@x.example"))
    assert key != digest_of(row(b"X-Idempotency-Key: 8\r\n"))
    by_id = digest_of(row(b"Subject: x\r\nMessage-Id: <a@b>\r\n", "a@x.example", "b@x.example"))
    assert by_id == digest_of(row(b"MESSAGE-ID:\r\n\t<a@b>\r\n", "b@x.example", "a@x.example"))
    assert by_id != digest_of(row(b"Message-ID: <a@b>\r\n", "a@x.example")), "another copy of it, to somebody else"
    assert digest_of(row(b"Subject: x\r\n")) is None, "what stands in the body is no field"
    assert digest_of(row(b"X-Idempotency-Key:\r\n")) is None


class Desk:
    """A committer over the store in memory."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.once = Once(self.store)
        self.announcer = Announcer(FakePublisher())
        self.watch = _Watch()
        self.committer = Committer(None, self.store, self.announcer, self.watch, sweep_after_seconds=15, once=self.once)

    async def tenant(self, seconds: int | None = 60) -> UUID:
        tenant = await self.store.create_tenant("acme")
        await self.store.set_tenant_policy("acme", TenantPolicy(idempotency_seconds=seconds))
        await self.once.load()
        return tenant.id


class _Watch:
    is_down = False

    def succeeded(self) -> None:
        pass

    def failed(self, error: Exception) -> None:
        raise error


@pytest.mark.parametrize("seconds", [60, None])
async def test_a_second_submission_hears_the_first_id(seconds: int | None) -> None:
    desk = Desk()
    tenant = (await desk.tenant(seconds)).bytes
    first, again = (row(b"Message-ID: <a@b>\r\n", tenant=tenant) for _ in range(2))
    others = row(b"Message-ID: <a@b>\r\n", tenant=uuid4().bytes)
    batches = [FakeBatch([first, others]), FakeBatch([again])]
    for batch in batches:
        await desk.committer.commit(batch)
    assert [batch.told for batch in batches] == [[250, 250], [250]]
    assert batches[1].names.get(again[ID], again[ID]) == (first[ID] if seconds else again[ID])
    stored = {summary.id.bytes for summary in await desk.store.list_messages()}
    assert stored == {first[ID], others[ID]} | (set() if seconds else {again[ID]})
    assert set(desk.announcer._ids[Lane.TRANSACTIONAL]) == stored


async def test_who_wants_it_is_read_again_and_stays_known_without_the_store(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    running = asyncio.create_task(desk.once.run())
    await settle()
    tenant = await desk.store.create_tenant("acme")
    await desk.store.set_tenant_policy("acme", TenantPolicy(idempotency_seconds=60))
    desk.once.changed()
    await settle()
    assert desk.once.concerns([tenant.id.bytes])
    desk.store.down = True
    desk.once.changed()
    await settle()
    assert desk.once.concerns([tenant.id.bytes])
    assert [getattr(record, "action", "") for record in caplog.records] == ["policies_unread"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
