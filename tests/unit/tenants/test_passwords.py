"""Passwords and names."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest
from argon2 import extract_parameters
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.errors import AlreadyExists, InvalidValue, NotFound
from smtp_proxy.store import MemoryStore
from smtp_proxy.tenants import accounts, names, passwords
from smtp_proxy.tenants.passwords import DUMMY_HASH, Passwords, generate_password


@pytest.fixture
def pool() -> Iterator[Passwords]:
    made = Passwords(1)
    yield made
    made.close()


async def test_hash_and_verify(pool: Passwords) -> None:
    hashed = await pool.hash("geheim-ä")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await pool.verify(hashed, "geheim-ä")
    assert not await pool.verify(hashed, "geheim-a")
    assert hashed != await pool.hash("geheim-ä")


@pytest.mark.parametrize("hashed", ["", "plain", "$argon2id$v=19$m=1", DUMMY_HASH])
async def test_a_hash_that_matches_nothing(pool: Passwords, hashed: str) -> None:
    assert not await pool.verify(hashed, "x")
    assert not await pool.verify(hashed, "\udc80")


async def test_the_dummy_costs_what_a_real_one_costs(pool: Passwords) -> None:
    assert extract_parameters(DUMMY_HASH) == extract_parameters(await pool.hash("x"))


def test_generated_passwords() -> None:
    made = {generate_password() for _ in range(200)}
    assert len(made) == 200
    for secret in made:
        assert names.password(secret) == secret
        assert len(secret) == 32
        assert secret.isascii()
        assert secret.isalnum(), "'-' in front would be an option to swaks and curl"


@pytest.mark.parametrize("name", ["a", "0", "acme", "acme-2", "a" * 63])
def test_tenant_names(name: str) -> None:
    assert names.tenant_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "Acme", "a_b", "a b", "ä", "a" * 64, "a\n", "a.b"])
def test_not_tenant_names(name: str) -> None:
    with pytest.raises(InvalidValue, match="can not name a tenant"):
        names.tenant_name(name)


@pytest.mark.parametrize("name", ["app", "app@example.com", "Jörg", "a" * 255, "<script>"])
def test_usernames(name: str) -> None:
    assert names.username(name) == name


@pytest.mark.parametrize("name", ["", "a b", "a\0", "a\n", "a" * 256, "Jo\u0308rg", "a\u00a0b", "\udc80"])
def test_not_usernames(name: str) -> None:
    with pytest.raises(InvalidValue):
        names.username(name)


@given(st.text())
def test_a_username_that_passes_is_safe_to_show_and_store(name: str) -> None:
    try:
        names.username(name)
    except InvalidValue:
        return
    assert name.isprintable()
    assert name.encode().decode() == name


@pytest.mark.parametrize("secret", ["", "short", "x" * 1025, "nul\0inside", "line\nbreak", "ä" * 600])
def test_not_passwords(secret: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        names.password(secret)
    assert not secret or secret not in str(caught.value)


async def test_accounts(pool: Passwords) -> None:
    store = MemoryStore()
    tenant = await accounts.create_tenant(store, "acme")
    credential, secret = await accounts.create_credential(store, pool, "acme", "app")
    assert credential.tenant_id == tenant.id
    assert await pool.verify(credential.password_hash, secret)
    assert secret not in repr(credential)
    changed, new_secret = await accounts.reset_password(store, pool, "app", "chosen by hand")
    assert new_secret == "chosen by hand"
    assert await pool.verify(changed.password_hash, "chosen by hand")
    with pytest.raises(AlreadyExists):
        await accounts.create_credential(store, pool, "acme", "app")
    with pytest.raises(NotFound):
        await accounts.create_credential(store, pool, "nobody", "other")
    with pytest.raises(NotFound):
        await accounts.reset_password(store, pool, "nobody")
    with pytest.raises(InvalidValue):
        await accounts.create_credential(store, pool, "acme", "other", "short")
    with pytest.raises(InvalidValue):
        await accounts.create_tenant(store, "Not A Name")


async def test_hashing_gives_way_to_mail(pool: Passwords) -> None:
    """The threads of the pool have a lower priority than the process."""

    if os.uname().sysname != "Linux":
        pytest.skip("only Linux has priorities for threads")

    def nice() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    here = nice()
    there = await asyncio.get_running_loop().run_in_executor(pool._pool, nice)
    assert there == passwords._NICE > here
