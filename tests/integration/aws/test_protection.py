"""Scale-in protection, against an HTTP server that answers as ECS's agent is documented to (REQ-INFRA-SCALE-010)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from ecs_agent import OFF, ON, TASK, EcsAgent

from smtp_proxy.aws import protection as protection_module
from smtp_proxy.aws.protection import AGENT_VARIABLE, IDLE_SECONDS, REST_SECONDS, Agent, TaskProtection, protecting
from smtp_proxy.clock import ManualClock, SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError
from smtp_proxy.telemetry.metrics import REGISTRY

pytestmark = pytest.mark.integration


class Work:
    def __init__(self) -> None:
        self.there = False

    def __call__(self) -> bool:
        return self.there


def failures() -> float:
    return REGISTRY.get_sample_value("smtp_task_protection_failed_total") or 0.0


async def test_held_while_there_is_work_renewed_and_released_when_idle(ecs: EcsAgent) -> None:
    clock, work = ManualClock(), Work()
    protection = TaskProtection(Agent(ecs.uri), 10, work, max_minutes=60, clock=clock)
    await protection.look()
    assert ecs.states == []
    work.there = True
    await protection.look()
    assert (ecs.states, protection.is_held) == ([ON], True)
    assert REGISTRY.get_sample_value("smtp_task_protected") == 1
    for _ in range(299):
        clock.advance(1)
        await protection.look()
    assert ecs.states == [ON]
    clock.advance(1)
    await protection.look()
    assert ecs.states == [ON, ON]
    work.there = False
    clock.advance(IDLE_SECONDS - 1)
    await protection.look()
    assert ecs.states == [ON, ON]
    clock.advance(1)
    await protection.look()
    assert (ecs.states, protection.is_held) == ([ON, ON, OFF], False)
    assert REGISTRY.get_sample_value("smtp_task_protected") == 0


async def held_at(protection: TaskProtection, clock: ManualClock, seconds: int) -> list[bool]:
    """Whether it is held after each of so many seconds, looked at each second."""
    held = []
    for _ in range(seconds):
        await protection.look()
        held.append(protection.is_held)
        clock.advance(1)
    return held


async def test_work_without_an_end_leaves_ecs_its_turn(ecs: EcsAgent, caplog: pytest.LogCaptureFixture) -> None:
    clock, work = ManualClock(), Work()
    work.there = True
    protection = TaskProtection(Agent(ecs.uri), 10, work, max_minutes=33, clock=clock)
    with caplog.at_level(logging.INFO):
        held = await held_at(protection, clock, 2 * (33 * 60 + int(REST_SECONDS)))
    turn = [True] * (33 * 60) + [False] * int(REST_SECONDS)
    assert held == turn * 2
    asked = [state.get("ExpiresInMinutes", 0) for state in ecs.states]
    assert asked == [10, 10, 10, 10, 10, 8, 0] * 2, "at 25 minutes for the 8 that are left, so that it ends without us"
    assert "released, for it was held for TASK_PROTECTION_MAX_MINUTES" in caplog.text
    assert REGISTRY.get_sample_value("smtp_task_protected") == 0


async def test_short_breaks_do_not_begin_a_new_hold(ecs: EcsAgent) -> None:
    """Clients who leave for a minute now and then: ECS finds it unprotected by chance alone, until it is its turn."""
    clock, work = ManualClock(), Work()
    protection = TaskProtection(Agent(ecs.uri), 10, work, max_minutes=20, clock=clock)
    held: list[bool] = []
    for minute in range(50):
        work.there = minute % 3 != 2
        held += await held_at(protection, clock, 60)
    longest, row = 0, 0
    for each in held:
        row = 0 if each else row + 1
        longest = max(longest, row)
    assert longest >= REST_SECONDS
    assert not any(held[20 * 60 : 23 * 60])
    assert any(held[25 * 60 : 40 * 60]), "and then it is held again"


async def test_a_real_break_begins_a_new_hold(ecs: EcsAgent) -> None:
    clock, work = ManualClock(), Work()
    protection = TaskProtection(Agent(ecs.uri), 10, work, max_minutes=20, clock=clock)
    work.there = True
    assert all(await held_at(protection, clock, 15 * 60))
    work.there = False
    await held_at(protection, clock, int(IDLE_SECONDS + REST_SECONDS))
    work.there = True
    assert all(await held_at(protection, clock, 19 * 60))


async def test_what_is_not_renewed_is_over(ecs: EcsAgent, caplog: pytest.LogCaptureFixture) -> None:
    """ECS lets it go after the minutes that were asked for: neither the gauge nor `is_held` says otherwise."""
    clock, work = ManualClock(), Work()
    work.there = True
    protection = TaskProtection(Agent(ecs.uri), 10, work, max_minutes=60, clock=clock)
    await protection.look()
    ecs.trouble = (500, {"error": {"Code": "ServerException", "Message": "x"}})
    held = await held_at(protection, clock, 12 * 60)
    assert held == [True] * 600 + [False] * 120
    assert REGISTRY.get_sample_value("smtp_task_protected") == 0
    assert "task protection has expired" in caplog.text
    asked = len(ecs.states)
    await protection.leave()
    assert len(ecs.states) == asked, "there is nothing to give back"
    ecs.trouble = None
    held = await held_at(protection, clock, 120)
    assert held[-1]
    assert REGISTRY.get_sample_value("smtp_task_protected") == 1


async def test_an_agent_away_at_the_end_holds_nothing_beyond_it(ecs: EcsAgent) -> None:
    clock, work = ManualClock(), Work()
    work.there = True
    protection = TaskProtection(Agent(ecs.uri), 10, work, max_minutes=15, clock=clock)
    await held_at(protection, clock, 14 * 60)
    ecs.trouble = (502, "<html>")
    assert await held_at(protection, clock, 120) == [True] * 60 + [False] * 60


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ((200, {"failure": {"Arn": TASK, "Detail": None, "Reason": "DEPLOYMENT_BLOCKED"}}), "DEPLOYMENT_BLOCKED"),
        (
            (400, {"error": {"Arn": TASK, "Code": "AccessDeniedException", "Message": "not authorized"}}),
            "AccessDeniedException: not authorized; allow ecs:UpdateTaskProtection to the task's role",
        ),
        ((500, {"error": {"Code": "ServerException", "Message": "x"}}), "ServerException"),
        ((502, "<html>"), "the agent answers 502, and not as documented"),
        ((200, {"protection": {"ProtectionEnabled": False}}), "protection is not as asked"),
    ],
)
async def test_a_refusal_is_told_counted_and_asked_again(
    ecs: EcsAgent, trouble: tuple[int, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock, work = ManualClock(), Work()
    work.there, ecs.trouble, before = True, trouble, failures()
    protection = TaskProtection(Agent(ecs.uri), 10, work, max_minutes=60, clock=clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(8):
            await protection.look()
            clock.advance(0.25)
    assert said in caplog.text
    assert (len(ecs.states), failures() - before, protection.is_held) == (1, 1, False)
    ecs.trouble = None
    clock.advance(8)
    await protection.look()
    assert protection.is_held


async def test_an_agent_that_is_away_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    work, before = Work(), failures()
    work.there = True
    settings = Settings.load({"task_protection": "on"}, {})
    async with protecting(settings, work, clock=SystemClock(), environ={AGENT_VARIABLE: "http://127.0.0.1:9"}):
        async with asyncio.timeout(5):
            while failures() == before:
                await asyncio.sleep(0.01)
    assert "the agent does not answer" in caplog.text


async def test_a_service_holds_it_and_gives_it_back_at_the_end(ecs: EcsAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection_module, "_LOOK_SECONDS", 0.01)
    work = Work()
    async with protecting(Settings(), work, clock=SystemClock(), environ={AGENT_VARIABLE: ecs.uri}):
        work.there = True
        async with asyncio.timeout(5):
            while not ecs.states:
                await asyncio.sleep(0.01)
    assert ecs.states == [ON, OFF]


async def test_what_was_just_being_asked_for_is_given_back_too(ecs: EcsAgent) -> None:
    """It came to hold after we had left, for TASK_PROTECTION_MINUTES."""
    ecs.slow_seconds = 0.3
    work = Work()
    work.there = True
    async with protecting(Settings(), work, clock=SystemClock(), environ={AGENT_VARIABLE: ecs.uri}):
        async with asyncio.timeout(5):
            while not ecs.states:
                await asyncio.sleep(0.01)
        assert ecs.states == [ON]
    assert ecs.states == [ON, OFF]


async def test_without_an_agent_or_switched_off_nothing_is_asked(ecs: EcsAgent) -> None:
    work = Work()
    work.there = True
    async with protecting(Settings(), work, clock=SystemClock(), environ={}):
        await asyncio.sleep(0.05)
    off = Settings.load({"task_protection": "off"}, {})
    async with protecting(off, work, clock=SystemClock(), environ={AGENT_VARIABLE: ecs.uri}):
        await asyncio.sleep(0.05)
    assert ecs.states == []


@pytest.mark.parametrize("environ", [{}, {AGENT_VARIABLE: "ftp://x"}, {AGENT_VARIABLE: "http://h:port"}])
async def test_what_can_not_be_is_said(environ: dict[str, str]) -> None:
    on = Settings.load({"task_protection": "on"}, {})
    with pytest.raises(ConfigurationError, match=AGENT_VARIABLE):
        async with protecting(on, Work(), clock=SystemClock(), environ=environ):
            pass
