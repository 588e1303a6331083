"""Logins: checked once, remembered a while, forgotten at once."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from smtp_proxy.clock import ManualClock
from smtp_proxy.config import Settings
from smtp_proxy.errors import StoreUnavailable
from smtp_proxy.model.tenant import Credential, Identity
from smtp_proxy.store import MemoryStore
from smtp_proxy.tenants import logins
from smtp_proxy.tenants.logins import LoginChecker
from smtp_proxy.tenants.passwords import DUMMY_HASH


class CountingPasswords:
    """Plain comparison that counts, and can be held up."""

    def __init__(self) -> None:
        self.verified: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def verify(self, password_hash: str, password: str) -> bool:
        self.verified.append(password_hash)
        await self.gate.wait()
        return password_hash == f"hash of {password}"

    def close(self) -> None:
        pass


class House:
    """A checker with all that stands around it."""

    def __init__(self, **overrides: Any) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.passwords = CountingPasswords()
        settings = Settings.load({"login_cache_seconds": 60, **overrides}, {})
        self.logins = LoginChecker(self.store, settings, self.clock, self.passwords)  # type: ignore[arg-type]
        self.tenant = uuid4()

    async def add(self, username: str = "app", password: str = "secret") -> Credential:
        return await self.store.create_credential(self.tenant, username, f"hash of {password}")


@pytest.fixture
async def house() -> House:
    made = House()
    await made.add()
    return made


async def test_right_and_wrong(house: House) -> None:
    credential = await house.store.credential_by_username("app")
    assert credential is not None
    assert await house.logins.check("app", "secret") == Identity(house.tenant, credential.id, "app")
    assert await house.logins.check("app", "Secret") is False
    assert await house.logins.check("App", "secret") is False


async def test_a_login_brings_the_senders_it_may_use(house: House) -> None:
    await house.store.set_allowed_senders("app", ["example.com", "<>"])
    identity = await house.logins.check("app", "secret")
    assert identity
    assert identity.senders == ("example.com", "<>")


async def test_a_known_login_costs_nothing_until_its_life_ends(house: House) -> None:
    assert house.logins.cached("app", "secret") is None
    for _ in range(5):
        assert await house.logins.check("app", "secret")
    assert isinstance(house.logins.cached("app", "secret"), Identity)
    assert len(house.passwords.verified) == 1
    house.clock.advance(59)
    assert house.logins.cached("app", "secret")
    house.clock.advance(2)
    assert house.logins.cached("app", "secret") is None
    assert await house.logins.check("app", "secret")
    assert len(house.passwords.verified) == 2


async def test_a_wrong_login_is_remembered_for_less_long(house: House) -> None:
    assert await house.logins.check("app", "wrong") is False
    assert await house.logins.check("app", "wrong") is False
    assert house.logins.cached("app", "wrong") is False
    assert len(house.passwords.verified) == 1
    house.clock.advance(11)
    assert house.logins.cached("app", "wrong") is None


async def test_an_unknown_or_disabled_user_takes_as_long_as_a_wrong_password(house: House) -> None:
    assert await house.logins.check("nobody", "secret") is False
    await house.store.disable_credential("app")
    assert await house.logins.check("app", "secret") is False
    assert house.passwords.verified == [DUMMY_HASH, DUMMY_HASH]


@pytest.mark.parametrize("username", ["", "a\0b", "a\nb", "\udc80"])
async def test_a_name_that_no_one_can_have_is_not_looked_up(house: House, username: str) -> None:
    assert await house.logins.check(username, "secret") is False


async def test_when_the_store_is_away_only_known_logins_pass(house: House) -> None:
    assert await house.logins.check("app", "secret")
    house.store.down = True
    assert await house.logins.check("app", "secret")
    assert await house.logins.check("app", "other") is None
    assert house.logins.cached("app", "other") is None
    house.store.down = False
    assert await house.logins.check("app", "other") is False


async def test_a_change_is_heard_at_once(house: House) -> None:
    listening = asyncio.create_task(house.store.listen_credentials(house.logins.forget))
    await asyncio.sleep(0)
    assert await house.logins.check("app", "secret")
    await house.store.disable_credential("app")
    assert await house.logins.check("app", "secret") is False
    listening.cancel()


async def test_what_was_looked_up_before_the_change_is_not_remembered(house: House) -> None:
    house.passwords.gate.clear()
    early = asyncio.create_task(house.logins.check("app", "secret"))
    await asyncio.sleep(0.01)
    await house.store.set_password_hash("app", "hash of new")
    house.logins.forget()
    late = asyncio.create_task(house.logins.check("app", "secret"))
    await asyncio.sleep(0.01)
    house.passwords.gate.set()
    assert await early
    assert await late is False
    assert house.logins.cached("app", "secret") is False


async def test_a_thousand_connections_of_one_application_cost_one_check(house: House) -> None:
    house.passwords.gate.clear()
    waiting = asyncio.create_task(
        house.logins.check_many([("app", "secret", f"10.0.0.{n % 250}") for n in range(1000)])
    )
    await asyncio.sleep(0.01)
    house.passwords.gate.set()
    verdicts = await waiting
    assert len(verdicts) == 1000
    assert all(isinstance(verdict, Identity) for verdict in verdicts)
    assert len(house.passwords.verified) == 1


async def test_verdicts_come_in_the_order_of_the_requests(house: House) -> None:
    other = await house.add("batch", "another")
    requests = [("app", "wrong", ""), ("batch", "another", ""), ("nobody", "x", ""), ("app", "secret", "")]
    verdicts = await house.logins.check_many(requests)
    assert [bool(verdict) for verdict in verdicts] == [False, True, False, True]
    assert verdicts[1] == Identity(house.tenant, other.id, "batch")


async def test_one_that_gives_up_does_not_end_the_check_of_the_others(house: House) -> None:
    house.passwords.gate.clear()
    first = asyncio.create_task(house.logins.check("app", "secret"))
    second = asyncio.create_task(house.logins.check("app", "secret"))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    house.passwords.gate.set()
    assert await second


async def test_a_storm_of_different_logins_is_bounded() -> None:
    house = House(login_queue_max=10)
    await house.add()
    house.passwords.gate.clear()
    storm = [asyncio.create_task(house.logins.check("app", f"guess {n}")) for n in range(30)]
    await asyncio.sleep(0.01)
    assert len(house.passwords.verified) == 4  # twice login_hash_threads at work
    house.passwords.gate.set()
    verdicts = await asyncio.gather(*storm)
    assert [verdicts.count(v) for v in (False, None)] == [10, 20]


async def test_the_memory_is_bounded_and_holds_no_password(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "_CACHE_MAX", 3)
    for n in range(6):
        await house.logins.check("app", f"guess {n}")
    assert house.logins.cached("app", "guess 0") is None
    assert house.logins.cached("app", "guess 5") is False
    assert "guess" not in repr(vars(house.logins))


async def test_without_a_cache_every_login_is_checked() -> None:
    house = House(login_cache_seconds=0)
    await house.add()
    for _ in range(2):
        assert await house.logins.check("app", "secret")
    assert len(house.passwords.verified) == 2


async def test_name_and_password_are_kept_apart(house: House) -> None:
    """`ab` + `c` is another login than `a` + `bc`."""
    await house.add("ab", "c-secret")
    assert await house.logins.check("ab", "c-secret")
    assert house.logins.cached("a", "bc-secret") is None


async def test_an_error_of_ours_reaches_every_waiter(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(username: str) -> Credential:
        raise StoreUnavailable

    monkeypatch.setattr(house.store, "credential_by_username", broken)
    assert await house.logins.check_many([("app", "secret", "")] * 3) == [None, None, None]


async def test_a_good_login_is_kept_no_longer_than_it_is_believed(house: House) -> None:
    assert house.logins.keep("app", "secret") is None
    assert await house.logins.check("app", "secret")
    assert await house.logins.check("app", "wrong") is False
    assert house.logins.keep("app", "secret") == (60.0, [])
    assert house.logins.keep("app", "wrong") is None
    house.clock.advance(45)
    assert house.logins.keep("app", "secret") == (15.0, [])
    house.clock.advance(15)
    assert house.logins.keep("app", "secret") is None


async def test_what_is_forgotten_is_not_kept(house: House) -> None:
    assert await house.logins.check("app", "secret")
    house.logins.forget()
    assert house.logins.keep("app", "secret") is None
