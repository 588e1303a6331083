"""Domains and the keys that sign for them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from smtp_proxy.errors import AlreadyExists, NotFound
from smtp_proxy.model.domain import DomainKey
from smtp_proxy.sealing import Sealed
from smtp_proxy.store.ids import new_id
from store_suite.rows import Stores

NOW = datetime(2020, 2, 29, 12, tzinfo=UTC)


def key(selector: str, *, signs_from: datetime = NOW) -> DomainKey:
    return DomainKey(new_id(NOW), selector, "ed25519-sha256", b"public", Sealed("k1", b"sealed"), NOW, signs_from)


class DomainSuite:
    async def test_domains_of_tenants(self, stores: Stores) -> None:
        store = stores.store
        acme, other = await store.create_tenant("acme"), await store.create_tenant("other")
        one, two = key("a"), key("b", signs_from=NOW + timedelta(days=1))
        added = await store.add_domain(acme.id, "example.com", [one, two])
        assert added.keys == (one, two)
        theirs = await store.add_domain(other.id, "example.com", [key("c")])
        with pytest.raises(AlreadyExists):
            await store.add_domain(acme.id, "example.com", [key("d")])
        assert await store.list_domains(acme.id) == [added]
        assert {d.id for d in await store.list_domains(name="example.com")} == {added.id, theirs.id}
        assert await store.list_domains(name="example.net") == []
        await store.remove_domain(added.id)
        with pytest.raises(NotFound):
            await store.remove_domain(added.id)
        assert await store.list_domains() == [theirs]

    async def test_keys_overlap_when_they_are_rotated(self, stores: Stores) -> None:
        store = stores.store
        acme = await store.create_tenant("acme")
        old, begins = key("old", signs_from=NOW - timedelta(days=90)), NOW + timedelta(days=1)
        domain = await store.add_domain(acme.id, "example.com", [old])
        await store.rotate_domain(domain.id, [key("new", signs_from=begins)], NOW - timedelta(days=7))
        (domain,) = await store.list_domains(acme.id)
        assert [(k.selector, k.signs_until) for k in domain.keys] == [("old", begins), ("new", None)]
        for when, selector in ((NOW, "old"), (begins - timedelta(seconds=1), "old"), (begins, "new")):
            assert [k.selector for k in domain.keys if k.signs_at(when)] == [selector]
        later = begins + timedelta(days=8)
        await store.rotate_domain(domain.id, [key("third", signs_from=later)], later - timedelta(days=7))
        (domain,) = await store.list_domains(acme.id)
        assert [(k.selector, k.signs_until) for k in domain.keys] == [("new", later), ("third", None)]

    async def test_a_key_is_sealed_anew(self, stores: Stores) -> None:
        store = stores.store
        acme = await store.create_tenant("acme")
        (old,) = (await store.add_domain(acme.id, "example.com", [key("a")])).keys
        assert await store.reseal_domain_key(old, Sealed("k2", b"another"))
        assert not await store.reseal_domain_key(old, Sealed("k3", b"too late"))
        assert (await store.list_domains())[0].keys[0].sealed == Sealed("k2", b"another")

    async def test_changes_of_domains_are_told(self, stores: Stores) -> None:
        store = stores.store
        acme = await store.create_tenant("acme")
        told = asyncio.Event()
        listening = asyncio.create_task(store.listen_domains(told.set))
        await asyncio.wait_for(told.wait(), 5)
        told.clear()
        domain = await store.add_domain(acme.id, "example.com", [key("a")])
        await asyncio.wait_for(told.wait(), 5)
        await asyncio.sleep(0.1)
        told.clear()
        await store.rotate_domain(domain.id, [key("b")], NOW)
        await asyncio.wait_for(told.wait(), 5)
        listening.cancel()
