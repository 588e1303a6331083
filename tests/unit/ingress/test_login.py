"""The login desk: what is known at once, what is slow beside the loop, and nobody waits for another's login."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from ingress_fakes import Arriving, FakeChecker, FakeLogins, settle

from smtp_proxy.ingress.login import LoginDesk
from smtp_proxy.model.tenant import Identity

APP = Identity(UUID(int=1), UUID(int=2), "app", ("example.com",))
APP_ACCEPTED = (UUID(int=1).bytes, UUID(int=2).bytes, "app", ("example.com",))


class House:
    """A desk at work."""

    def __init__(self) -> None:
        self.source: Arriving[FakeLogins] = Arriving()
        self.checker = FakeChecker()
        self.desk = asyncio.create_task(LoginDesk(self.source, self.checker).run())

    def arrive(self, *usernames: str) -> FakeLogins:
        logins = FakeLogins(*((username, "secret") for username in usernames))
        self.source.arrive(logins)
        return logins

    def hold(self, username: str) -> asyncio.Event:
        return self.checker.held.setdefault(username, asyncio.Event())

    async def end(self) -> None:
        self.desk.cancel()
        await asyncio.gather(self.desk, return_exceptions=True)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    made = House()
    yield made
    await made.end()


async def test_what_the_core_is_told(house: House) -> None:
    house.checker.found = {"app": APP, "stranger": False, "unlucky": None}
    logins = [house.arrive(name) for name in ("app", "stranger", "unlucky")]
    await asyncio.gather(*(each.answered.wait() for each in logins))
    assert [each.verdicts for each in logins] == [[APP_ACCEPTED], [False], [None]]


async def test_a_known_login_is_answered_without_a_check(house: House) -> None:
    house.checker.known = {"app": APP, "stranger": False}
    logins = [house.arrive(name) for name in ("app", "stranger")]
    await settle()
    assert [each.verdicts for each in logins] == [[APP_ACCEPTED], [False]]
    assert house.checker.checked == []


async def test_a_slow_login_holds_nobody_up(house: House) -> None:
    house.checker.known, house.checker.found = {"known": APP}, {"slow": APP, "other": APP}
    slow_one = house.hold("slow")
    slow, known, other = (house.arrive(name) for name in ("slow", "known", "other"))
    await settle()
    assert [each.verdicts for each in (slow, known, other)] == [None, [APP_ACCEPTED], [APP_ACCEPTED]]
    slow_one.set()
    await settle()
    assert slow.verdicts == [APP_ACCEPTED]


async def test_verdicts_come_in_the_order_of_the_requests(house: House) -> None:
    house.checker.known, house.checker.found = {"known": APP}, {"unlucky": None}
    logins = house.arrive("stranger", "known", "unlucky")
    await logins.answered.wait()
    assert logins.verdicts == [False, APP_ACCEPTED, None]


async def test_a_check_that_fails_is_told_so_and_the_next_fares_better(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.checker.found = {"broken": RuntimeError("a mistake of ours"), "app": APP}
    broken = house.arrive("broken", "app")
    await broken.answered.wait()
    assert broken.verdicts == [None, None]
    assert "a mistake of ours" in caplog.text
    assert "secret" not in caplog.text
    well = house.arrive("app")
    await well.answered.wait()
    assert well.verdicts == [APP_ACCEPTED]
    assert not house.desk.done()


async def test_a_desk_that_closes_gives_up_its_checks(house: House) -> None:
    house.hold("slow")
    slow = house.arrive("slow")
    await settle()
    assert house.checker.checked == ["slow"]
    before = {task for task in asyncio.all_tasks() if task.get_name() == "login"}
    await house.end()
    await settle()
    assert len(before) == 1
    assert all(task.cancelled() for task in before)
    assert slow.verdicts is None, "dropped unanswered, the core says 454"


async def test_the_core_may_keep_good_logins_alone(house: House) -> None:
    house.checker.found = {"app": APP, "other": APP, "stranger": False}
    house.checker.kept = {"app": (60.0, ["192.0.2.0/24"]), "stranger": (60.0, [])}
    logins = house.arrive("stranger", "app", "other")
    await logins.answered.wait()
    assert logins.kept == [None, (60.0, ["192.0.2.0/24"]), None]
