"""Keys of the HTTP API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from smtp_proxy.errors import AlreadyExists, NotFound
from smtp_proxy.model.api_key import ApiScope
from store_suite.rows import Stores

READ, WRITE = ApiScope.SUPPRESSIONS_READ, ApiScope.SUPPRESSIONS_WRITE


class ApiKeySuite:
    async def test_a_key_is_found_by_its_digest(self, stores: Stores) -> None:
        acme = await stores.store.create_tenant("acme")
        ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
        made = await stores.store.create_api_key("acme", "crm", b"1" * 32, [WRITE, READ], ends)
        assert (made.tenant_id, made.tenant, made.name, made.scopes) == (acme.id, "acme", "crm", {READ, WRITE})
        assert (made.expires_at, made.revoked_at, made.last_used_at, made.tenant_disabled) == (ends, None, None, False)
        assert await stores.store.api_key_by_digest(b"1" * 32) == made
        assert await stores.store.api_key_by_digest(b"2" * 32) is None
        assert made.is_valid(ends - timedelta(seconds=1))
        assert not made.is_valid(ends)

    async def test_a_name_is_one_key_of_a_tenant_until_it_is_revoked(self, stores: Stores) -> None:
        acme = await stores.store.create_tenant("acme")
        await stores.store.create_tenant("abc")
        first = await stores.store.create_api_key("acme", "crm", b"1" * 32, [READ])
        with pytest.raises(AlreadyExists):
            await stores.store.create_api_key("acme", "crm", b"2" * 32, [READ])
        with pytest.raises(NotFound):
            await stores.store.create_api_key("nobody", "crm", b"2" * 32, [READ])
        theirs = await stores.store.create_api_key("abc", "crm", b"3" * 32, [READ])

        revoked = await stores.store.revoke_api_key("acme", "crm")
        assert (revoked.id, revoked.revoked_at is not None) == (first.id, True)
        assert not revoked.is_valid(datetime.now(UTC))
        assert await stores.store.api_key_by_digest(b"1" * 32) == revoked
        with pytest.raises(NotFound):
            await stores.store.revoke_api_key("acme", "crm")
        await stores.let_pass(1)
        second = await stores.store.create_api_key("acme", "crm", b"4" * 32, [READ])
        assert await stores.store.list_api_keys(acme.id) == [revoked, second]
        assert await stores.store.list_api_keys() == [theirs, revoked, second]

    async def test_its_use_is_noted(self, stores: Stores) -> None:
        await stores.store.create_tenant("acme")
        made = await stores.store.create_api_key("acme", "crm", b"1" * 32, [READ])
        other = await stores.store.create_api_key("acme", "erp", b"2" * 32, [READ])
        await stores.store.note_api_key_used(made.id)
        noted = await stores.store.api_key_by_digest(b"1" * 32)
        assert noted is not None
        assert noted.last_used_at is not None
        assert await stores.store.api_key_by_digest(b"2" * 32) == other
