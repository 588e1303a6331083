"""An HTTP server that answers as ECS's agent is documented to. Import the fixture: `from ecs_agent import ecs`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

TASK = "arn:aws:ecs:us-west-2:111122223333:task/1234567890abcdef0"
# What it is told, with the default of TASK_PROTECTION_MINUTES.
ON = {"ProtectionEnabled": True, "ExpiresInMinutes": 10}
OFF = {"ProtectionEnabled": False}


class EcsAgent:
    """Answers of the developer guide, "Amazon ECS task scale-in protection endpoint"."""

    def __init__(self) -> None:
        self.uri = ""
        self.states: list[dict[str, Any]] = []
        self.trouble: tuple[int, Any] | None = None
        self.slow_seconds = 0.0

    async def put(self, request: web.Request) -> web.Response:
        state = await request.json()
        self.states.append(state)
        await asyncio.sleep(self.slow_seconds)
        if self.trouble is not None:
            status, body = self.trouble
            return web.Response(status=status, text=body if isinstance(body, str) else json.dumps(body))
        answer: dict[str, Any] = {"ProtectionEnabled": state["ProtectionEnabled"], "TaskArn": TASK}
        if state["ProtectionEnabled"]:
            answer["ExpirationDate"] = "2023-12-20T21:57:44Z"
        return web.json_response({"protection": answer})


@pytest.fixture
async def ecs() -> AsyncIterator[EcsAgent]:
    agent = EcsAgent()
    app = web.Application()
    app.router.add_put("/api/0123-4567/task-protection/v1/state", agent.put)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    agent.uri = f"http://127.0.0.1:{runner.addresses[0][1]}/api/0123-4567"
    yield agent
    await runner.cleanup()
