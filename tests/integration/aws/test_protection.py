"""Scale-in protection, against an HTTP server that answers as ECS's agent is documented to (REQ-INFRA-SCALE-010)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from ecs_agent import OFF, ON, TASK, EcsAgent

from smtp_proxy.aws import protection as protection_module
from smtp_proxy.aws.protection import AGENT_VARIABLE, IDLE_SECONDS, Agent, TaskProtection, protecting
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
    protection = TaskProtection(Agent(ecs.uri), 10, work, clock=clock)
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
    protection = TaskProtection(Agent(ecs.uri), 10, work, clock=clock)
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
