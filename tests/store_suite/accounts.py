"""Tenants, credentials and the certificates that log in."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network

import pytest

from smtp_proxy.errors import AlreadyExists, NotFound
from smtp_proxy.model.limits import TenantLimits
from smtp_proxy.model.policy import OnUnknown, TenantPolicy
from store_suite.rows import Stores


class AccountSuite:
    async def test_tenants(self, stores: Stores) -> None:
        acme = await stores.store.create_tenant("acme")
        await stores.store.create_tenant("abc")
        assert [tenant.name for tenant in await stores.store.list_tenants()] == ["abc", "acme"]
        assert await stores.store.tenant_by_name("acme") == acme
        with pytest.raises(AlreadyExists):
            await stores.store.create_tenant("acme")
        with pytest.raises(NotFound):
            await stores.store.tenant_by_name("nobody")

    async def test_a_tenants_policy(self, stores: Stores) -> None:
        await stores.store.create_tenant("acme")
        assert await stores.store.tenant_policy("acme") == TenantPolicy(OnUnknown.RETRY, None)
        wanted = TenantPolicy(OnUnknown.HOLD, 3600)
        assert await stores.store.set_tenant_policy("acme", wanted) == wanted
        assert await stores.store.tenant_policy("acme") == wanted
        with pytest.raises(NotFound):
            await stores.store.tenant_policy("nobody")
        with pytest.raises(NotFound):
            await stores.store.set_tenant_policy("nobody", wanted)

    async def test_credentials(self, stores: Stores) -> None:
        acme, abc = await stores.store.create_tenant("acme"), await stores.store.create_tenant("abc")
        app = await stores.store.create_credential(acme.id, "app", "hash-1")
        await stores.store.create_credential(abc.id, "batch", "hash-2")
        assert await stores.store.credential_by_username("app") == app
        assert await stores.store.credential_by_username("nobody") is None
        assert [c.username for c in await stores.store.list_credentials()] == ["app", "batch"]
        assert [c.username for c in await stores.store.list_credentials(acme.id)] == ["app"]
        with pytest.raises(AlreadyExists):
            await stores.store.create_credential(abc.id, "app", "hash-3")
        assert (await stores.store.set_password_hash("app", "hash-4")).password_hash == "hash-4"
        disabled = await stores.store.disable_credential("app")
        assert disabled.disabled_at is not None
        assert await stores.store.disable_credential("app") == disabled
        with pytest.raises(NotFound):
            await stores.store.disable_credential("nobody")
        for _ in range(2):
            enabled = await stores.store.enable_credential("app")
            assert (enabled.disabled_at, enabled.password_hash) == (None, "hash-4")
        with pytest.raises(NotFound):
            await stores.store.enable_credential("nobody")
        with pytest.raises(NotFound):
            await stores.store.set_password_hash("nobody", "hash")

    async def test_allowed_senders(self, stores: Stores) -> None:
        acme = await stores.store.create_tenant("acme")
        assert (await stores.store.create_credential(acme.id, "app", "hash")).allowed_senders == ()
        patterns = ("example.com", '"john doe"@example.net', "<>")
        batch = await stores.store.create_credential(acme.id, "batch", "hash", patterns)
        assert batch.allowed_senders == patterns
        assert await stores.store.credential_by_username("batch") == batch
        assert (await stores.store.set_allowed_senders("app", patterns[:1])).allowed_senders == patterns[:1]
        assert (await stores.store.disable_credential("app")).allowed_senders == patterns[:1]
        assert [c.allowed_senders for c in await stores.store.list_credentials()] == [patterns[:1], patterns]
        assert (await stores.store.set_allowed_senders("app", ())).allowed_senders == ()
        with pytest.raises(NotFound):
            await stores.store.set_allowed_senders("nobody", patterns)

    async def test_networks_of_a_credential(self, stores: Stores) -> None:
        acme = await stores.store.create_tenant("acme")
        office, one = ip_network("198.51.100.0/24"), ip_network("2001:db8::1")
        made = await stores.store.create_credential(acme.id, "app", "hash-1", allowed_networks=(office, one))
        assert made.allowed_networks == (office, one)
        assert await stores.store.credential_by_username("app") == made
        changed = await stores.store.set_allowed_networks("app", (one,))
        assert changed.allowed_networks == (one,)
        assert [c.allowed_networks for c in await stores.store.list_credentials()] == [(one,)]
        assert (await stores.store.set_allowed_networks("app", ())).allowed_networks == ()
        with pytest.raises(NotFound):
            await stores.store.set_allowed_networks("nobody", ())

    async def test_changes_of_credentials_are_told(self, stores: Stores) -> None:
        acme = await stores.store.create_tenant("acme")
        told: asyncio.Queue[None] = asyncio.Queue()
        listening = asyncio.create_task(stores.store.listen_credentials(lambda: told.put_nowait(None)))
        try:
            await asyncio.wait_for(told.get(), 20)  # once for the connection
            await stores.store.create_credential(acme.id, "app", "hash")
            await asyncio.wait_for(told.get(), 20)
            await stores.store.disable_credential("app")
            await asyncio.wait_for(told.get(), 20)
            await stores.store.enable_credential("app")
            await asyncio.wait_for(told.get(), 20)
            await stores.store.set_allowed_senders("app", ["example.com"])
            await asyncio.wait_for(told.get(), 20)
            await stores.store.set_tenant_limits("acme", TenantLimits(sessions=1))
            await asyncio.wait_for(told.get(), 20)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def test_certificates_of_clients(self, stores: Stores) -> None:
        store = stores.store
        acme = await store.create_tenant("acme")
        await store.create_credential(acme.id, "app", "hash")
        await store.create_credential(acme.id, "batch", "hash")
        added = await store.add_certificate("app", "sha256:00")
        assert (added.identity, added.username) == ("sha256:00", "app")
        await store.add_certificate("app", "dns:app.example")
        await store.add_certificate("batch", "dns:batch.example")
        with pytest.raises(AlreadyExists):
            await store.add_certificate("batch", "dns:app.example")
        with pytest.raises(NotFound):
            await store.add_certificate("nobody", "dns:nobody.example")
        assert [c.identity for c in await store.list_certificates("app")] == ["dns:app.example", "sha256:00"]
        assert [c.username for c in await store.list_certificates()] == ["app", "app", "batch"]
        asked = ["sha256:00", "dns:batch.example", "dns:nobody.example"]
        assert await store.usernames_by_certificate(asked) == {"sha256:00": "app", "dns:batch.example": "batch"}
        with pytest.raises(NotFound):
            await store.remove_certificate("batch", "sha256:00")
        await store.remove_certificate("app", "sha256:00")
        assert await store.usernames_by_certificate(["sha256:00"]) == {}

    async def test_changes_of_certificates_are_told(self, stores: Stores) -> None:
        acme = await stores.store.create_tenant("acme")
        await stores.store.create_credential(acme.id, "app", "hash")
        told: asyncio.Queue[None] = asyncio.Queue()
        listening = asyncio.create_task(stores.store.listen_credentials(lambda: told.put_nowait(None)))
        try:
            await asyncio.wait_for(told.get(), 20)  # once for the connection
            await stores.store.add_certificate("app", "dns:app.example")
            await asyncio.wait_for(told.get(), 20)
            await stores.store.remove_certificate("app", "dns:app.example")
            await asyncio.wait_for(told.get(), 20)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
