"""The fake keeps the promises of the store."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from store_suite import SWEEP_AFTER, Stores, StoreSuite, core_envelope

from smtp_proxy.clock import ManualClock
from smtp_proxy.errors import StoreUnavailable
from smtp_proxy.store import Leadership, MemoryStore, Store
from smtp_proxy.store.memory_leader import MemoryLeadership


@pytest.fixture
def stores() -> Stores:
    clock = ManualClock(datetime.now(UTC))

    async def let_pass(seconds: float) -> None:
        clock.advance(seconds)

    return Stores(MemoryStore(clock), let_pass)


class TestMemory(StoreSuite):
    pass


def public(cls: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member, eval_str=False).replace(return_annotation=None)
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(("real", "fake"), [(Store, MemoryStore), (Leadership, MemoryLeadership)])
def test_the_fake_has_the_same_interface(real: type, fake: type) -> None:
    wanted = {name: [p.replace(default=None) for p in s.parameters.values()] for name, s in public(real).items()}
    offered = {name: [p.replace(default=None) for p in s.parameters.values()] for name, s in public(fake).items()}
    assert offered == wanted


async def test_a_store_that_is_down() -> None:
    store = MemoryStore()
    lead = store.leader("sweeper")
    assert await lead.try_acquire()
    store.down = True
    assert not lead.held
    for call in (
        store.ping(),
        store.probe_commit(),
        store.accept([core_envelope()], sweep_after_seconds=SWEEP_AFTER),
        store.claim([uuid4()], uuid4(), 1),
        store.sweep(1, 1),
        store.depth(),
        store.credential_by_username("app"),
        lead.try_acquire(),
    ):
        with pytest.raises(StoreUnavailable):
            await call
