"""Who may log in: what the database says, and soon after it says something else."""

from __future__ import annotations

import asyncio

import pytest
from argon2 import PasswordHasher
from fix_ingress import PASSWORD, USERNAME, House, MakeHouse, eventually

from smtp_proxy.store import listen
from smtp_proxy.telemetry.metrics import REGISTRY

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


async def verdict(house: House, username: str = USERNAME, password: str = PASSWORD) -> str:
    """What a client of its own hears."""
    client = await house.client(log_in=False)
    reply = await client.log_in(username, password)
    await client.hang_up()
    return reply[:9]


async def listens(house: House) -> bool:
    """Does the service listen for changes of credentials?"""
    query = (
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%' AND state = 'idle'"
        " AND application_name = 'smtp-proxy listen smtp_proxy_credentials'"
    )
    return bool(await house.sql(query))


async def hears(house: House, code: str, password: str = PASSWORD) -> None:
    """Soon the login is answered so."""

    async def so() -> bool:
        return (await verdict(house, password=password)).startswith(code)

    await eventually(so, 5)


@pytest.mark.parametrize(
    ("username", "password"), [(USERNAME, "wrong"), ("nobody@acme.example", PASSWORD), (USERNAME, ""), ("", "")]
)
async def test_wrong_password_and_unknown_user_hear_the_same(house: House, username: str, password: str) -> None:
    client = await house.client(log_in=False)
    for _ in range(2):  # The second is known by now.
        reply = await client.log_in(username, password)
        assert reply.startswith(("535 5.7.8", "501"))
    assert (await client.say("MAIL FROM:<a@sender.example>")).startswith("530")
    assert (await client.log_in()).startswith("235")
    envelope_id = await client.submit()
    assert await house.stored() == [envelope_id]


async def test_a_disabled_credential_stops_working(house: House) -> None:
    assert await verdict(house) == "235 2.7.0"
    await house.store.disable_credential(USERNAME)
    await hears(house, "535 5.7.8")


async def test_a_disabled_tenants_credentials_stop_working(house: House) -> None:
    assert await verdict(house) == "235 2.7.0"
    await house.sql("UPDATE tenants SET disabled_at = now()")
    await hears(house, "535 5.7.8")


async def test_a_new_password_replaces_the_old(house: House) -> None:
    assert await verdict(house) == "235 2.7.0"
    assert await verdict(house, password="changed") == "535 5.7.8"
    changed = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash("changed")
    await house.store.set_password_hash(USERNAME, changed)
    await hears(house, "235", password="changed")
    assert await verdict(house) == "535 5.7.8"


async def test_a_change_during_an_outage_is_heard_of(house: House) -> None:
    """A notification that nobody heard is made up for by forgetting all when Postgres is back."""
    assert await verdict(house) == "235 2.7.0"
    await house.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()"
    )
    await house.sql("ALTER TABLE credentials DISABLE TRIGGER ALL")
    await house.sql("UPDATE credentials SET disabled_at = now()")
    await hears(house, "535 5.7.8")


async def test_a_change_is_heeded_while_nobody_can_listen(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the connection for notifications is lost, and does not come back: what is remembered is not trusted."""
    await eventually(lambda: listens(house))
    assert await verdict(house) == "235 2.7.0"

    async def refused(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(listen, "open_session", refused)
    await house.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'smtp-proxy listen smtp_proxy_credentials'"
    )
    await house.store.disable_credential(USERNAME)
    await hears(house, "535 5.7.8")
    assert not await listens(house)


async def test_without_postgres_every_login_is_put_off(house: House) -> None:
    """Also one that was known: whether it still holds can not be told, and its mail could not be stored anyway."""
    known, new = [await house.client(log_in=False) for _ in range(2)]
    await eventually(lambda: listens(house))  # When it begins to listen, all is forgotten.
    assert await verdict(house) == "235 2.7.0"
    await asyncio.to_thread(house.postgres.kill)
    assert (await new.log_in(password="not seen before")).startswith("454 4.7.0")
    assert (await known.log_in()).startswith("454 4.7.0")
    await asyncio.to_thread(house.postgres.start)
    assert (await new.log_in()).startswith("235 2.7.0")


async def test_a_storm_of_logins_is_answered(make_house: MakeHouse) -> None:
    """Right and wrong at once, each its own answer."""
    house = await make_house(login_cache_seconds=0)
    await house.start()
    words = [PASSWORD if n % 3 == 0 else f"guess {n}" for n in range(60)]
    verdicts = await asyncio.gather(*(verdict(house, password=word) for word in words))
    assert verdicts == ["235 2.7.0" if word == PASSWORD else "535 5.7.8" for word in words]


async def test_a_returning_login_is_answered_by_the_core_until_something_changes(house: House) -> None:
    await eventually(lambda: listens(house))  # When it begins to listen, all is forgotten.

    def remembered() -> int:
        return int(REGISTRY.get_sample_value("smtp_core_logins_remembered_total") or 0)

    assert [await verdict(house) for _ in range(4)] == ["235 2.7.0"] * 4
    assert remembered() == 3
    assert [await verdict(house, password="wrong") for _ in range(2)] == ["535 5.7.8"] * 2
    assert remembered() == 3
    await house.sql("UPDATE credentials SET allowed_networks = '{198.51.100.0/24}'")
    await hears(house, "535 5.7.8")
    before = remembered()
    assert await verdict(house) == "535 5.7.8"
    assert remembered() == before
