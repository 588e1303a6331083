"""Keys of the HTTP API: made once, known by their digest, refused as soon as they end."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from smtp_proxy import tenants
from smtp_proxy.clock import ManualClock
from smtp_proxy.errors import InvalidValue, NotFound, StoreUnavailable
from smtp_proxy.model.api_key import ApiKey, ApiScope
from smtp_proxy.store import MemoryStore

READ = ApiScope.MESSAGES_READ


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 27, tzinfo=UTC))


@pytest.fixture
async def store(clock: ManualClock) -> MemoryStore:
    made = MemoryStore(clock)
    await made.create_tenant("acme")
    return made


async def test_a_key_is_long_and_its_digest_alone_is_kept(store: MemoryStore, clock: ManualClock) -> None:
    kept, key = await tenants.create_api_key(store, "acme", "crm", [READ])
    assert key.startswith("spk_")
    assert len(key) == 4 + 43  # 256 bits
    assert key not in repr(kept)
    assert await store.api_key_by_digest(hashlib.sha256(key.encode()).digest()) == kept
    found = await tenants.ApiKeyChecker(store, clock).find(key)
    assert found is not None
    assert (found.id, found.scopes) == (kept.id, {READ})
    _, other = await tenants.create_api_key(store, "acme", "erp", [READ])
    assert other != key


@pytest.mark.parametrize("name", ["", "-crm", ".crm", "a b", "a" * 64, "crm\n", "ü"])
async def test_a_name_is_plain(store: MemoryStore, name: str) -> None:
    with pytest.raises(InvalidValue, match="can not name a key"):
        await tenants.create_api_key(store, "acme", name, [READ])


async def test_a_key_without_a_scope_is_none(store: MemoryStore) -> None:
    with pytest.raises(InvalidValue, match="suppressions:read, suppressions:write, messages:read, messages:write"):
        await tenants.create_api_key(store, "acme", "crm", [])
    with pytest.raises(NotFound):
        await tenants.create_api_key(store, "nobody", "crm", [READ])


async def test_what_is_no_key_is_not_looked_up(store: MemoryStore, clock: ManualClock) -> None:
    _, key = await tenants.create_api_key(store, "acme", "crm", [READ])
    store.down = True
    checker = tenants.ApiKeyChecker(store, clock)
    for nothing in (
        "",
        "spk_",
        key[:-1],
        key + "A",
        key[4:],
        key.replace("spk_", "spk-"),
        "spk_" + "ü" * 43,
        key + "\n",
    ):
        assert await checker.find(nothing) is None
    with pytest.raises(StoreUnavailable):
        await checker.find(key)


async def test_a_key_ends(store: MemoryStore, clock: ManualClock) -> None:
    checker = tenants.ApiKeyChecker(store, clock)
    _, key = await tenants.create_api_key(store, "acme", "crm", [READ], clock.now() + timedelta(days=1))
    clock.advance(86_399)
    assert await checker.find(key) is not None
    clock.advance(1)
    assert await checker.find(key) is None
    _, lasting = await tenants.create_api_key(store, "acme", "erp", [READ])
    await store.revoke_api_key("acme", "erp")
    assert await checker.find(lasting) is None


class Counting(MemoryStore):
    noted = 0
    reads_only = False

    async def note_api_key_used(self, key_id: object) -> None:
        self.noted += 1
        if self.reads_only:
            raise StoreUnavailable("the server only reads")
        await super().note_api_key_used(key_id)  # type: ignore[arg-type]


async def test_its_use_is_noted_once_an_hour_and_turns_nobody_away(clock: ManualClock) -> None:
    store = Counting(clock)
    await store.create_tenant("acme")
    checker = tenants.ApiKeyChecker(store, clock)
    _, key = await tenants.create_api_key(store, "acme", "crm", [READ])
    for _ in range(3):
        assert await checker.find(key) is not None
    assert store.noted == 1
    clock.advance(3600)
    store.reads_only = True
    for _ in range(3):
        assert isinstance(await checker.find(key), ApiKey)
    assert store.noted == 2
    clock.advance(3600)
    store.reads_only = False
    await checker.find(key)
    assert store.noted == 3
