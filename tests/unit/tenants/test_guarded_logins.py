"""Logins as somebody sees them who must learn nothing from them, and who must not take the queue from others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any
from uuid import uuid4

import pytest

from smtp_proxy.clock import ManualClock
from smtp_proxy.config import Settings
from smtp_proxy.errors import InvalidValue
from smtp_proxy.model.tenant import Credential, Identity
from smtp_proxy.store import MemoryStore
from smtp_proxy.tenants.logins import LoginChecker
from smtp_proxy.tenants.networks import admits, client_of, networks

OFFICE, HERE, ELSEWHERE = ip_network("198.51.100.0/24"), "198.51.100.7", "203.0.113.9"


class CountedStore(MemoryStore):
    """Writes down every question."""

    def __init__(self, clock: ManualClock, asked: list[str]) -> None:
        super().__init__(clock)
        self._asked = asked

    async def credential_by_username(self, username: str) -> Credential | None:
        self._asked.append("looked up")
        return await super().credential_by_username(username)


class CountedPasswords:
    """Plain comparison that writes down that it was done, and can be held up."""

    def __init__(self, asked: list[str]) -> None:
        self._asked = asked
        self.open = asyncio.Event()
        self.open.set()

    async def verify(self, password_hash: str, password: str) -> bool:
        self._asked.append("hashed")
        await self.open.wait()
        return password_hash == f"hash of {password}"

    def close(self) -> None:
        pass


class House:
    """A checker and the list of all it asked its surroundings."""

    def __init__(self, **overrides: Any) -> None:
        self.clock = ManualClock()
        self.asked: list[str] = []
        self.store = CountedStore(self.clock, self.asked)
        self.passwords = CountedPasswords(self.asked)
        settings = Settings.load({"login_cache_seconds": 60, **overrides}, {})
        self.logins = LoginChecker(self.store, settings, self.clock, self.passwords)  # type: ignore[arg-type]

    async def add(self, username: str, *allowed: Any) -> None:
        await self.store.create_credential(uuid4(), username, "hash of secret", allowed_networks=allowed)

    async def trace(self, username: str, password: str, address: str) -> list[str]:
        """What one refused login asks for."""
        self.asked.clear()
        known = self.logins.cached(username, password, address)
        assert await self.logins.check(username, password, address) is False
        return [f"known: {known}", *self.asked]


@pytest.fixture
async def house() -> House:
    made = House()
    await made.add("app")
    await made.add("gone")
    await made.add("office", OFFICE)
    await made.store.disable_credential("gone")
    return made


@pytest.mark.parametrize("is_logged_in", [False, True], ids=["quiet", "the customer is logged in"])
async def test_all_refusals_look_alike(house: House, is_logged_in: bool) -> None:
    """The same questions to the same places, the first time, the second time, and when it was forgotten."""
    if is_logged_in:
        assert await house.logins.check("office", "secret", HERE)
        assert await house.logins.check("app", "secret", ELSEWHERE)
    refused = {
        "unknown user": ("nobody", "guess"),
        "wrong password": ("app", "guess"),
        "disabled, right password": ("gone", "secret"),
        "right password from elsewhere": ("office", "secret"),
        "wrong password from elsewhere": ("office", "guess"),
    }
    traces = {}
    for name, (username, password) in refused.items():
        first = await house.trace(username, password, ELSEWHERE)
        second = await house.trace(username, password, "203.0.113.10")
        house.clock.advance(11)
        third = await house.trace(username, password, ELSEWHERE)
        traces[name] = (first, second, third)
    work = ["known: None", "looked up", "hashed"]
    assert traces == dict.fromkeys(refused, (work, ["known: False"], work))


async def test_networks_are_kept_to_whatever_is_remembered(house: House) -> None:
    assert await house.logins.check("office", "secret", ELSEWHERE) is False
    assert isinstance(await house.logins.check("office", "secret", HERE), Identity)
    assert house.logins.cached("office", "secret", HERE)
    for address in (ELSEWHERE, "", "unknown", "2001:db8::1"):
        assert await house.logins.check("office", "secret", address) is False, address
    assert isinstance(await house.logins.check("office", "secret", "::ffff:198.51.100.7"), Identity)


async def test_one_check_for_both_gives_each_its_own_verdict(house: House) -> None:
    house.passwords.open.clear()
    both = [asyncio.create_task(house.logins.check("office", "secret", address)) for address in (ELSEWHERE, HERE)]
    await asyncio.sleep(0.01)
    house.passwords.open.set()
    assert [bool(verdict) for verdict in await asyncio.gather(*both)] == [False, True]
    assert house.asked.count("hashed") == 1


async def test_a_change_of_networks_counts_at_once(house: House) -> None:
    listening = asyncio.create_task(house.store.listen_credentials(house.logins.forget))
    await asyncio.sleep(0)
    assert await house.logins.check("app", "secret", ELSEWHERE)
    await house.store.set_allowed_networks("app", (OFFICE,))
    assert await house.logins.check("app", "secret", ELSEWHERE) is False
    assert await house.logins.check("app", "secret", HERE)
    listening.cancel()


async def test_the_operator_is_told_the_reason_once_a_minute(house: House, caplog: pytest.LogCaptureFixture) -> None:
    def told() -> int:
        return sum(vars(record).get("action") == "login_elsewhere" for record in caplog.records)

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await house.logins.check("office", "secret", ELSEWHERE)
            await asyncio.sleep(0)
            house.clock.advance(11)
        assert told() == 1
        assert ELSEWHERE in caplog.text
        assert "secret" not in caplog.text
        house.clock.advance(60)
        await house.logins.check("office", "secret", ELSEWHERE)
        await house.logins.check("office", "guess", ELSEWHERE)
        await asyncio.sleep(0)
    assert told() == 2


async def test_one_address_cannot_fill_the_queue() -> None:
    house = House(login_queue_max=20, login_queue_max_per_address=5)
    await house.add("app")
    house.passwords.open.clear()
    storm = [asyncio.create_task(house.logins.check("app", f"guess {n}", "2001:db8::1")) for n in range(10)]
    storm += [asyncio.create_task(house.logins.check("app", f"try {n}", f"2001:db8::{n + 2:x}")) for n in range(10)]
    await asyncio.sleep(0.01)
    customer = asyncio.create_task(house.logins.check("app", "secret", HERE))
    await asyncio.sleep(0.01)
    house.passwords.open.set()
    assert await customer
    verdicts = await asyncio.gather(*storm)
    assert [verdicts.count(v) for v in (False, None)] == [5, 15]
    assert await house.logins.check("app", "another", "2001:db8::1") is False, "its share is free again"


async def test_many_connections_with_one_login_take_one_place() -> None:
    house = House(login_queue_max_per_address=1)
    await house.add("app")
    verdicts = await house.logins.check_many([("app", "secret", HERE)] * 500)
    assert all(isinstance(verdict, Identity) for verdict in verdicts)


def test_networks_are_read_sorted_and_without_doubles() -> None:
    found = networks(["2001:db8::/48", "198.51.100.0/24", "192.0.2.7", "198.51.100.0/24"])
    assert [str(network) for network in found] == ["192.0.2.7/32", "198.51.100.0/24", "2001:db8::/48"]
    assert networks([]) == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("office", "is no network: write 198"),
        ("", "is no network"),
        ("198.51.100.0/33", "is no network"),
        ("198.51.100.7/24", "write 198.51.100.0/24, or a single address"),
        ("2001:db8::1/48", "write 2001:db8::/48"),
        ("::ffff:198.51.100.0/120", "IPv4 within IPv6"),
    ],
)
def test_what_is_no_network_is_told_what_would_do(text: str, says: str) -> None:
    with pytest.raises(InvalidValue, match=says):
        networks([text])


def test_too_many_networks() -> None:
    with pytest.raises(InvalidValue, match="at most 100"):
        networks(f"192.0.{n}.0/24" for n in range(101))


@pytest.mark.parametrize(
    ("check", "is_so"),
    [
        (lambda: admits((), "anything"), True),
        (lambda: admits((OFFICE,), HERE), True),
        (lambda: admits((OFFICE, ip_network("2001:db8::/32")), "2001:db8:9::1"), True),
        (lambda: admits((OFFICE,), "2001:db8::1"), False),
        (lambda: client_of("2001:db8::1", 64) == client_of("2001:db8::2", 64), True),
        (lambda: client_of("2001:db8::1", 64) == client_of("2001:db8:0:1::1", 64), False),
        (lambda: client_of("::ffff:192.0.2.1", 64) == client_of("192.0.2.1", 64), True),
    ],
)
def test_addresses(check: Callable[[], bool], is_so: bool) -> None:
    assert check() is is_so
